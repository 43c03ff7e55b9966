"""Writing a plan down: the nodes and initializers of a graph with Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.calibration.accumulator import INT32_MAX
from optuna_quant.backends.onnxruntime.calibration.accumulator import NO_STEPS
from optuna_quant.backends.onnxruntime.calibration.accumulator import fit_accumulator
from optuna_quant.backends.onnxruntime.calibration.accumulator import steps_of
from optuna_quant.backends.onnxruntime.model.graph import CONTRIB
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import unused_name
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_INTEGERS


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight
    from optuna_quant.backends.onnxruntime.model.weights import WeightStore
    from optuna_quant.backends.onnxruntime.ranges.qparams import Params
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


@dataclass(frozen=True)
class PairForm:
    """In what form a provider wants pairs.

    Args:
        is_cpu:
            Whether the runtime's CPU provider makes integer kernels of them.
        integer_bias:
            Whether biases are integers on the grid of the products; otherwise they stay in floats.
        weight_pairs:
            Whether weights are stored in floats, behind a pair.
    """

    is_cpu: bool = True
    integer_bias: bool = True
    weight_pairs: bool = False


CPU_FORM = PairForm()


class Writer:
    """Writes one candidate.

    Args:
        graph:
            The graph.
        plan:
            Where tensors are quantized.
        weights:
            Gives the quantized weights.
        form:
            In what form pairs are written.

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
        self, graph: Graph, plan: Plan, weights: WeightStore, form: PairForm = CPU_FORM
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._weights = weights
        self._form = form
        self._taken: set[str] = set()
        self._shared: dict[Hashable, str] = {}
        self.integers: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.digests: dict[str, bytes] = {}
        since = onnx.defs.get_schema("DequantizeLinear", graph.opset).since_version
        self._domain = "" if since <= _NEWEST_KERNEL else CONTRIB
        self._axis_domain = self._domain if graph.opset >= _AXIS_OPSET else CONTRIB
        named = graph.opset >= _DTYPE_OPSET
        self._signed_domain = CONTRIB if named and form.is_cpu else self._domain
        self._wide_domain = self._domain if named else CONTRIB

    def write(self) -> None:
        """Write all nodes of the graph."""
        made, gemms = self._plan.made, self._plan.gemms
        absorbed = {i for gemm in gemms.values() for i in gemm.absorbed}
        for i, node in enumerate(self._graph.nodes):
            if i in absorbed:
                continue
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

    # Nodes.

    def _op(self, i: int, node: onnx.NodeProto, op: StaticOp, config: OpConfig) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        assert config.activation is not None
        for position in op.activations:
            tensor = node.input[position]
            if (i, position) in self._plan.read:
                copy.input[position] = self._pair(tensor, self._plan.read[i, position])
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
        name = node.input[op.weight.position]
        axis = op.weight.axis if config.granularity == "per_channel" else None
        # The kernels know no factors: they go into the weight and the bias.
        alpha, beta = _take_factors(node)
        weight = self._weights.get(name, config, axis, factor=alpha)
        kind: Hashable = (config, axis, alpha)
        if op.activations:
            source = self._graph.nodes[i].input[op.activations[0]]
            params = self._plan.read.get((i, op.activations[0])) or self._plan.made[source]
            # Sums of 16-bit products would not fit: what takes such activations has wider ones.
            is_narrow = np.iinfo(params.dtype).bits == 8
            bias = None
            if op.bias is not None and self._form.integer_bias:
                channels = weight.values.shape[0 if op.weight.axis is None else op.weight.axis]
                if op.op_type == "ConvTranspose":
                    channels = self._graph.initializers[node.input[op.bias]].dims[0]
                bias = self._graph.array(node.input[op.bias]).astype(np.float64) * beta
                bias = np.broadcast_to(bias.reshape(-1), (channels,))
            fitted = fit_accumulator(
                weight,
                partial(self._weights.array, name, factor=alpha),
                reduced=op.reduced_axes(weight.values.ndim),
                steps=steps_of(params.zero_point, params.dtype) if is_narrow else NO_STEPS,
                input_scale=params.scale,
                bias=bias,
            )
            if fitted is not weight:
                weight, kind = fitted, (kind, fitted.scale.tobytes())
            if op.bias is not None and bias is not None:
                node.input[op.bias] = self._bias(node.input[op.bias], bias, params, weight, beta)
        if op.bias is not None and not self._form.integer_bias and beta != 1.0:
            node.input[op.bias] = self._scaled_bias(node.input[op.bias], beta)
        if self._form.weight_pairs and op.activations:
            node.input[op.weight.position] = self._weight_pair(name, weight, kind, alpha)
        else:
            node.input[op.weight.position] = self._dequantized(name, weight, kind)

    def _quantized_outputs(self, node: onnx.NodeProto, outputs: Sequence[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self.nodes.append(copy)
        for j, name in enumerate(node.output):
            if name in outputs:
                copy.output[j] = self._name(f"{name}_float")
                self._quantize(copy.output[j], name, self._plan.made[name])

    def _runs_on_integers(self, node: onnx.NodeProto) -> bool:
        if not self._form.is_cpu:
            return False
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
        self._dequantize([copy.output[0], scale, zero_point], tensor, None, params.dtype)

    # Pairs.

    def _pair(self, tensor: str, params: Params) -> str:
        """The tensor that readers of floats read instead, to see them quantized."""
        key = ("pair", tensor, params)
        if key not in self._shared:
            source = self._barrier(tensor) if tensor in self._plan.barred else tensor
            self._shared[key] = output = self._name(f"{tensor}_dequantized")
            self._quantize(source, output, params)
        return self._shared[key]

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
        domain = self._signed_domain if params.dtype == "int8" else self._domain_of(params.dtype)
        self._add("QuantizeLinear", [source, *names], integers, domain=domain)
        self._add("DequantizeLinear", [integers, *names], output, domain=domain)

    def _domain_of(self, dtype: str, axis: int | None = None) -> str:
        """The domain of operators on a type; that of 16 bits is standard since opset 21."""
        if np.iinfo(dtype).bits == 16:
            return self._wide_domain
        return self._domain if axis is None else self._axis_domain

    def _dequantize(
        self, inputs: Sequence[str], output: str, axis: int | None, dtype: str = "int8"
    ) -> None:
        domain = self._domain_of(dtype, axis)
        if axis is None:
            self._add("DequantizeLinear", inputs, output, domain=domain)
        else:
            self._add("DequantizeLinear", inputs, output, domain=domain, axis=axis)

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
        return self._dequantized(name, self._weights.get(name, config, None), (config, None, 1.0))

    def _dequantized(self, name: str, weight: QuantizedWeight, kind: Hashable) -> str:
        """The output of the DequantizeLinear of a weight; ops that want the same share it."""
        key = ("weight", name, kind)
        if key not in self._shared:
            values = self._constant(f"{name}_quantized", weight.values)
            self.digests[values] = weight.digest
            scale = self._constant(f"{name}_scale", weight.scale)
            zero_point = self._constant(f"{name}_zero_point", weight.zero_point)
            self._shared[key] = output = self._name(f"{name}_dequantized")
            inputs = [values, scale, zero_point]
            self._dequantize(inputs, output, weight.axis, weight.values.dtype.name)
        return self._shared[key]

    def _weight_pair(
        self, name: str, weight: QuantizedWeight, kind: Hashable, factor: float
    ) -> str:
        """The output of the pair of a weight that is stored in floats."""
        key = ("weight pair", name, kind)
        if key not in self._shared:
            source = name
            if factor != 1.0:
                array = self._weights.array(name, factor=factor)
                source = self._shared_constant(("scaled", name, factor), f"{name}_scaled", array)
            scale = self._constant(f"{name}_scale", weight.scale)
            zero_point = self._constant(f"{name}_zero_point", weight.zero_point)
            integers = self._name(f"{name}_quantized")
            self._shared[key] = output = self._name(f"{name}_dequantized")
            domain = self._domain_of(weight.values.dtype.name, weight.axis)
            axis = {} if weight.axis is None else {"axis": weight.axis}
            params = [scale, zero_point]
            self._add("QuantizeLinear", [source, *params], integers, domain=domain, **axis)
            self._add("DequantizeLinear", [integers, *params], output, domain=domain, **axis)
        return self._shared[key]

    def _scaled_bias(self, name: str, beta: float) -> str:
        array = self._graph.array(name) * np.float32(beta)
        return self._shared_constant(("scaled", name, beta), f"{name}_scaled", array)

    def _bias(
        self,
        name: str,
        bias: NDArray[np.float64],
        params: Params,
        weight: QuantizedWeight,
        beta: float,
    ) -> str:
        """The output of the DequantizeLinear of a bias, on the grid of the products."""
        scale = np.float32(params.scale) * weight.scale
        key = ("bias", name, beta, scale.tobytes())
        if key not in self._shared:
            steps = np.divide(bias, scale, out=np.zeros(bias.shape), where=scale > 0)
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
