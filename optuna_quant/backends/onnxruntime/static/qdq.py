"""Writing a plan down: the nodes and initializers of a graph with Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.calibration.accumulator import INT32_MAX
from optuna_quant.backends.onnxruntime.model.graph import CONTRIB
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import unused_name
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_INTEGERS
from optuna_quant.backends.onnxruntime.static.corrections.op_weights import OpWeights
from optuna_quant.backends.onnxruntime.static.corrections.op_weights import takes_bias
from optuna_quant.backends.onnxruntime.static.matmul_add import find_constant_add
from optuna_quant.backends.onnxruntime.static.matmul_add import may_fuse_with_vector
from optuna_quant.backends.onnxruntime.static.write_options import AS_USUAL
from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight
    from optuna_quant.backends.onnxruntime.model.weights import WeightStore
    from optuna_quant.backends.onnxruntime.ranges.qparams import Params
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import FindMeans
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import OpWeight
    from optuna_quant.backends.onnxruntime.static.matmul_add import GemmForm
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.static.static import Plan
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import TensorConfig


_AXIS_OPSET = 13
"""The first opset whose DequantizeLinear has a channel axis; the runtime's own always has."""
_DTYPE_OPSET = 21
"""The first opset whose QuantizeLinear names its dtype, which the runtime forgets to change where
it makes unsigned values of signed ones; its own operator does not name it."""
_NEWEST_KERNEL = 25
"""The newest version of DequantizeLinear that the runtime knows."""


class Writer:
    """Writes one candidate.

    Args:
        graph:
            The graph.
        plan:
            Where tensors are quantized.
        weights:
            Gives the quantized weights.
        options:
            How it is written.
        means:
            Gives the means of ops' inputs; needed if the options ask to correct biases.

    Attributes:
        nodes:
            The nodes written.
        constants:
            The new initializers.
        digests:
            Hashes of the large ones among them.
        integers:
            The quantized tensor behind each tensor that comes out of a pair.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        weights: WeightStore,
        options: WriteOptions = AS_USUAL,
        means: FindMeans | None = None,
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._weights = weights
        self._options = options
        self._op_weights = OpWeights(graph, weights, options, means)
        self._moved: dict[int, tuple[int, NDArray[np.float64]]] = {}
        self._behind: dict[int, tuple[str, NDArray[np.float64]]] = {}
        self._floats: dict[str, str] = {}
        self._read: set[str] = {*graph.outputs, *graph.captured}
        self._taken: set[str] = set()
        self._shared: dict[Hashable, str] = {}
        self.integers: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.digests: dict[str, bytes] = {}
        since = onnx.defs.get_schema("DequantizeLinear", graph.opset).since_version
        self._domain = "" if since <= _NEWEST_KERNEL else CONTRIB
        self._axis_domain = self._domain if graph.opset >= _AXIS_OPSET else CONTRIB
        self._signed_domain = self._domain if graph.opset < _DTYPE_OPSET else CONTRIB

    def write(self) -> None:
        """Write all nodes of the graph."""
        made, gemms = self._plan.made, self._plan.gemms
        absorbed = {i for gemm in gemms.values() for i in gemm.absorbed}
        for i, node in enumerate(self._graph.nodes):
            if i in absorbed:
                continue
            node = self._with_dedicated_pairs(self._with_moved_constant(i, node))
            if i in gemms:
                self._gemm(i, node, gemms[i])
                continue
            if i in self._plan.ops:
                node = self._op(i, node, *self._plan.ops[i])
            elif barred := [j for j in range(len(node.input)) if (i, j) in self._plan.unfused]:
                node = self._behind_barrier(node, barred)
            outputs = [name for name in node.output if name in made]
            if not outputs:
                self.nodes.append(node)
            elif self._runs_on_integers(node):
                self._pass_integers(node)
            else:
                self._quantized_outputs(node, outputs)
            if i in self._behind:
                self._add_behind(*self._behind.pop(i), self._graph.nodes[i].output[0])

    # Nodes.

    def _op(self, i: int, node: onnx.NodeProto, op: StaticOp, config: OpConfig) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        assert config.activation is not None
        for position in op.activations:
            tensor = node.input[position]
            if (i, position) in self._plan.read:
                copy.input[position] = self._pair(tensor, self._plan.read[i, position], node.name)
            elif self._graph.is_constant(tensor):
                copy.input[position] = self._constant_operand(tensor, config.activation)
        if op.weight is not None and not op.rule.layer:
            assert config.weight is not None
            self._weighted(i, copy, op, config.weight)
        return copy

    def _gemm(self, i: int, node: onnx.NodeProto, form: GemmForm) -> None:
        """Write a MatMul as a Gemm, which takes matrices only."""
        op, config = self._plan.ops[i]
        inputs = [*node.input] if form.bias is None else [*node.input, form.bias]
        gemm = onnx.helper.make_node("Gemm", inputs, [form.result], node.name)
        bias = None if form.bias is None else 2
        gemm = self._op(i, gemm, replace(op, bias=bias), config)
        if form.shape is None:
            self.nodes.append(gemm)
            return
        gemm.input[0] = self._reshaped(gemm.input[0], (-1, self._graph.shapes[node.input[1]][0]))
        gemm.output[0] = self._name(f"{form.result}_matrix")
        self.nodes.append(gemm)
        self._add("Reshape", [gemm.output[0], self._shape(form.shape)], form.result)

    def _reshaped(self, tensor: str, shape: tuple[int | None, ...]) -> str:
        key = ("reshaped", tensor, shape)
        if key not in self._shared:
            self._shared[key] = output = self._name(f"{tensor}_matrix")
            self._add("Reshape", [tensor, self._shape(shape)], output)
        return self._shared[key]

    def _shape(self, shape: tuple[int | None, ...]) -> str:
        return self._shared_constant(("shape", shape), "shape", np.array(shape, np.int64))

    def _behind_barrier(self, node: onnx.NodeProto, positions: Sequence[int]) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position in positions:
            copy.input[position] = self._barrier(node.input[position])
        return copy

    def _weighted(self, i: int, node: onnx.NodeProto, op: StaticOp, config: TensorConfig) -> None:
        """Quantize the weight and the bias of a node."""
        assert op.weight is not None
        activation = None
        if op.activations:
            source = self._graph.nodes[i].input[op.activations[0]]
            params = self._plan.read.get((i, op.activations[0])) or self._plan.made[source]
            activation = source, params
        # The kernels know no factors: they go into the weight and the bias.
        factors = _take_factors(node)
        found = self._op_weights.of(node, op, config, factors, activation)
        if activation is not None and found.bias is not None:
            if takes_bias(node):
                self._biased(node, op, found, activation[1])
            else:
                self._shift_output(i, node, found.bias)
        position = op.weight.position
        name = node.input[position]
        node.input[position] = self._dequantized(name, found.weight, found.kind, factors[0])

    def _biased(self, node: onnx.NodeProto, op: StaticOp, found: OpWeight, params: Params) -> None:
        """Give a node its bias, which may be one that it lacked."""
        assert found.bias is not None
        position = 2 if op.bias is None else op.bias
        node.input.extend([""] * (position + 1 - len(node.input)))
        name = node.input[position] or f"{node.name}_bias"
        node.input[position] = self._bias(name, found, params)

    def _shift_output(self, i: int, node: onnx.NodeProto, shift: NDArray[np.float64]) -> None:
        """Have a constant added to the result of a product that takes no bias."""
        place = find_constant_add(i, self._graph)
        if place is not None and place[0] not in self._plan.ops:
            self._moved[place[0]] = place[1], shift
        else:
            product = node.output[0] = self._name(f"{node.output[0]}_product")
            self._behind[i] = product, shift

    def _with_moved_constant(self, i: int, node: onnx.NodeProto) -> onnx.NodeProto:
        """An Add with what a product before it lacks in its constant."""
        if i not in self._moved:
            return node
        position, shift = self._moved.pop(i)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        name = node.input[position]
        moved = (self._graph.array(name) + shift).astype(np.float32)
        copy.input[position] = self._constant(f"{name}_corrected", moved)
        return copy

    def _add_behind(self, product: str, shift: NDArray[np.float64], output: str) -> None:
        if may_fuse_with_vector(self._graph.producer[output], self._graph):
            product = self._barrier(product)
        name = self._constant(f"{output}_shift", shift.astype(np.float32))
        self._add("Add", [product, name], output)

    def _quantized_outputs(self, node: onnx.NodeProto, outputs: Sequence[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self.nodes.append(copy)
        for j, name in enumerate(node.output):
            if name in outputs:
                self._floats[name] = copy.output[j] = self._name(f"{name}_float")
                self._quantize(copy.output[j], name, self._plan.made[name])

    def _runs_on_integers(self, node: onnx.NodeProto) -> bool:
        old = node.op_type == "Pad" and self._graph.opset < _AXIS_OPSET
        return node.op_type in PASS_INTEGERS and node.input[0] in self.integers and not old

    def _pass_integers(self, node: onnx.NodeProto) -> None:
        """Write a node that gets and gives the integers behind its tensors."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        tensor, params = node.output[0], self._plan.made[node.output[0]]
        scale, zero_point = self._params(tensor, params)
        copy.input[0] = self.integers[node.input[0]]
        if node.op_type == "Pad":
            # What the float node pads with is zero.
            copy.input.extend([""] * (3 - len(copy.input)))
            copy.input[2] = zero_point
        copy.output[0] = self.integers[tensor] = self._name(f"{tensor}_quantized")
        self.nodes.append(copy)
        self._dequantize([copy.output[0], scale, zero_point], tensor, None)

    # Pairs.

    def _pair(self, tensor: str, params: Params, reader: str) -> str:
        """The tensor that readers of floats read instead, to see them quantized."""
        own = reader if self._options.dedicated_pairs else None
        key = ("pair", tensor, params, own)
        if key not in self._shared:
            source = self._barrier(tensor) if tensor in self._plan.barred else tensor
            self._shared[key] = output = self._name(f"{tensor}_dequantized")
            self._quantize(source, output, params)
        return self._shared[key]

    def _with_dedicated_pairs(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A node with a pair of its own behind each tensor that is quantized where it is made.

        The first reader has the pair that is written there, unless others see its result.
        """
        if not self._options.dedicated_pairs or node.op_type in PASS_INTEGERS:
            return node
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for tensor in dict.fromkeys(name for name in node.input if name in self._floats):
            if tensor in self._read:
                own = self._pair_of_own(tensor)
                for j, name in enumerate(node.input):
                    if name == tensor:
                        copy.input[j] = own
            self._read.add(tensor)
        return copy

    def _pair_of_own(self, tensor: str) -> str:
        output = self._name(f"{tensor}_dequantized")
        self._quantize(self._floats[tensor], output, self._plan.made[tensor])
        return output

    def _barrier(self, tensor: str) -> str:
        """The same tensor behind an operator that does nothing and that the runtime keeps."""
        key = ("barrier", tensor)
        if key not in self._shared:
            self._shared[key] = output = self._name(f"{tensor}_same")
            self._add("Max", [tensor], output)
        return self._shared[key]

    def _quantize(self, source: str, output: str, params: Params) -> None:
        """Write a pair from one tensor to another."""
        base = output.removesuffix("_dequantized")
        names = self._params(base, params)
        integers = self._name(f"{base}_quantized")
        self.integers[output] = integers
        domain = self._signed_domain if params.dtype == "int8" else self._domain
        self._add("QuantizeLinear", [source, *names], integers, domain=domain)
        self._add("DequantizeLinear", [integers, *names], output, domain=domain)

    def _dequantize(self, inputs: Sequence[str], output: str, axis: int | None) -> None:
        if axis is None:
            self._add("DequantizeLinear", inputs, output, domain=self._domain)
        else:
            self._add("DequantizeLinear", inputs, output, domain=self._axis_domain, axis=axis)

    def _params(self, tensor: str, params: Params) -> tuple[str, str]:
        scale = self._shared_constant(
            ("scale", params), f"{tensor}_scale", np.array(params.scale, np.float32)
        )
        zero_point = self._shared_constant(
            ("zero_point", params),
            f"{tensor}_zero_point",
            np.array(params.zero_point, params.dtype),
        )
        return scale, zero_point

    # Constants.

    def _constant_operand(self, name: str, config: TensorConfig) -> str:
        # Its range is known and need not be estimated.
        config = replace(config, algorithm="minmax")
        weight = self._weights.get(name, config, None)
        return self._dequantized(name, weight, (config, None, 1.0), 1.0)

    def _dequantized(
        self, name: str, weight: QuantizedWeight, kind: Hashable, factor: float
    ) -> str:
        """The output of the DequantizeLinear of a weight; ops that want the same share it."""
        key = ("weight", name, kind)
        if key not in self._shared:
            scale = self._constant(f"{name}_scale", weight.scale)
            zero_point = self._constant(f"{name}_zero_point", weight.zero_point)
            self._shared[key] = output = self._name(f"{name}_dequantized")
            if self._options.weight_pairs:
                floats = self._float_weight(name, weight, factor)
                self._weight_pair(floats, [scale, zero_point], output, weight)
            else:
                values = self._constant(f"{name}_quantized", weight.values)
                self.digests[values] = weight.digest
                self._dequantize([values, scale, zero_point], output, weight.axis)
        return self._shared[key]

    def _float_weight(self, name: str, weight: QuantizedWeight, factor: float) -> str:
        """A weight in floats of which QuantizeLinear makes the integers of a quantized one."""
        array = self._weights.array(name, factor=factor)
        if not np.array_equal(weight.quantize(array), weight.values):
            array = weight.to_floats().astype(np.float32)
        elif factor == 1.0:
            return name
        return self._constant(f"{name}_floats", array)

    def _weight_pair(
        self, floats: str, params: Sequence[str], output: str, weight: QuantizedWeight
    ) -> None:
        domain = self._domain if weight.axis is None else self._axis_domain
        if weight.values.dtype == np.int8:
            domain = domain or self._signed_domain
        axis = {} if weight.axis is None else {"axis": weight.axis}
        integers = self._name(f"{floats}_quantized")
        self._add("QuantizeLinear", [floats, *params], integers, domain=domain, **axis)
        self._add("DequantizeLinear", [integers, *params], output, domain=domain, **axis)

    def _bias(self, name: str, found: OpWeight, params: Params) -> str:
        """The output of the DequantizeLinear of a bias, on the grid of the products."""
        assert found.bias is not None
        scale = np.float32(params.scale) * found.weight.scale
        key = ("bias", name, found.bias_kind, scale.tobytes())
        if key not in self._shared:
            steps = np.divide(found.bias, scale, out=np.zeros(found.bias.shape), where=scale > 0)
            integers = np.clip(np.rint(steps), -INT32_MAX, INT32_MAX).astype(np.int32)
            inputs = [
                self._constant(f"{name}_quantized", integers),
                self._constant(f"{name}_scale", np.asarray(scale)),
                self._constant(f"{name}_zero_point", np.zeros(scale.shape, np.int32)),
            ]
            self._shared[key] = output = self._name(f"{name}_dequantized")
            self._dequantize(inputs, output, None if scale.ndim == 0 else 0)
        return self._shared[key]

    def _shared_constant(self, key: Hashable, wish: str, array: NDArray[Any]) -> str:
        if key not in self._shared:
            self._shared[key] = self._constant(wish, array)
        return self._shared[key]

    def _constant(self, wish: str, array: NDArray[Any]) -> str:
        name = self._name(wish)
        self.constants[name] = array
        return name

    def _name(self, wish: str) -> str:
        name = wish
        if wish in self._taken or wish in self._graph.names:
            name = unused_name(wish, self._taken | self._graph.names)
        self._taken.add(name)
        return name

    def _add(
        self, op_type: str, inputs: Sequence[str], output: str, *, domain: str = "", **kw: Any
    ) -> None:
        self.nodes.append(
            onnx.helper.make_node(
                op_type, inputs, [output], self._name(f"{output}_{op_type}"), domain=domain, **kw
            )
        )


def _take_factors(node: onnx.NodeProto) -> tuple[float, float]:
    """Take ``alpha`` and ``beta`` off a Gemm; 1.0 for other nodes."""
    if node.op_type != "Gemm":
        return 1.0, 1.0
    attributes: Mapping[str, Any] = node_attributes(node)
    kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]
    del node.attribute[:]
    node.attribute.extend(kept)
    return float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
