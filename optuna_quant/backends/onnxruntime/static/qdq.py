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

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_INTEGERS
from optuna_quant.backends.onnxruntime.static.corrections.op_weights import OpWeights
from optuna_quant.backends.onnxruntime.static.corrections.op_weights import takes_bias
from optuna_quant.backends.onnxruntime.static.matmul_add import find_constant_add
from optuna_quant.backends.onnxruntime.static.matmul_add import may_fuse_with_vector
from optuna_quant.backends.onnxruntime.static.write_options import AS_USUAL
from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions
from optuna_quant.backends.onnxruntime.static.written import AXIS_OPSET
from optuna_quant.backends.onnxruntime.static.written import WrittenGraph
from optuna_quant.backends.onnxruntime.static.written_weights import WrittenWeights


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.weights import WeightStore
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import FindMeans
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import OpWeight
    from optuna_quant.backends.onnxruntime.static.matmul_add import GemmForm
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.static.static import Plan
    from optuna_quant.backends.ranges.qparams import Params
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import TensorConfig


class QDQWriter:
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
        repeated_pairs:
            How many pairs are the same as another one, and have readers of their own.
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
        self._options = options
        self._written = WrittenGraph(graph, for_cpu=options.for_cpu)
        self._weights = WrittenWeights(self._written, weights, options)
        self._op_weights = OpWeights(graph, weights, options, means)
        self._moved: dict[int, tuple[int, NDArray[np.float64]]] = {}
        self._behind: dict[int, tuple[str, NDArray[np.float64]]] = {}
        self._floats: dict[str, str] = {}
        self._seen: set[Hashable] = {*graph.outputs, *graph.captured}
        self.repeated_pairs = 0

    def write(self) -> WrittenGraph:
        """Write all nodes of the graph."""
        output_qparams, gemms = self._plan.output_qparams, self._plan.gemms
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
            elif needs_barrier := [
                j for j in range(len(node.input)) if (i, j) in self._plan.unfused
            ]:
                node = self._behind_barrier(node, needs_barrier)
            outputs = [name for name in node.output if name in output_qparams]
            if not outputs:
                self._written.nodes.append(node)
            elif self._runs_on_integers(node):
                self._pass_integers(node)
            else:
                self._quantized_outputs(node, outputs)
            if i in self._behind:
                self._add_behind(*self._behind.pop(i), self._graph.nodes[i].output[0])
        return self._written

    # Nodes.

    def _op(self, i: int, node: onnx.NodeProto, op: StaticOp, config: OpConfig) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        assert config.activation is not None
        for position in op.activations:
            tensor = node.input[position]
            if (i, position) in self._plan.input_qparams:
                copy.input[position] = self._pair(
                    tensor, self._plan.input_qparams[i, position], node.name
                )
            elif self._graph.is_constant(tensor):
                copy.input[position] = self._weights.operand(tensor, config.activation)
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
            self._written.nodes.append(gemm)
            return
        gemm.input[0] = self._written.reshaped(
            gemm.input[0], (-1, self._graph.shapes[node.input[1]][0])
        )
        gemm.output[0] = self._written.name(f"{form.result}_matrix")
        self._written.nodes.append(gemm)
        self._written.add(
            "Reshape", [gemm.output[0], self._written.shape(form.shape)], form.result
        )

    def _behind_barrier(self, node: onnx.NodeProto, positions: Sequence[int]) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position in positions:
            copy.input[position] = self._written.barrier(node.input[position])
        return copy

    def _weighted(self, i: int, node: onnx.NodeProto, op: StaticOp, config: TensorConfig) -> None:
        """Quantize the weight and the bias of a node."""
        assert op.weight is not None
        activation = None
        if op.activations:
            source = self._graph.nodes[i].input[op.activations[0]]
            params = (
                self._plan.input_qparams.get((i, op.activations[0]))
                or self._plan.output_qparams[source]
            )
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
        node.input[position] = self._weights.weight(name, found.weight, found.kind, factors[0])

    def _biased(self, node: onnx.NodeProto, op: StaticOp, found: OpWeight, params: Params) -> None:
        """Give a node its bias, which may be one that it lacked."""
        assert found.bias is not None
        position = 2 if op.bias is None else op.bias
        node.input.extend([""] * (position + 1 - len(node.input)))
        name = node.input[position] or f"{node.name}_bias"
        node.input[position] = self._weights.bias(name, found, params)

    def _shift_output(self, i: int, node: onnx.NodeProto, shift: NDArray[np.float64]) -> None:
        """Have a constant added to the result of a product that takes no bias."""
        place = find_constant_add(i, self._graph)
        if place is not None and place[0] not in self._plan.ops:
            self._moved[place[0]] = place[1], shift
        else:
            product = node.output[0] = self._written.name(f"{node.output[0]}_product")
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
        copy.input[position] = self._written.constant(f"{name}_corrected", moved)
        return copy

    def _add_behind(self, product: str, shift: NDArray[np.float64], output: str) -> None:
        may_fuse = may_fuse_with_vector(self._graph.producer[output], self._graph)
        if self._options.for_cpu and may_fuse:
            product = self._written.barrier(product)
        name = self._written.constant(f"{output}_shift", shift.astype(np.float32))
        self._written.add("Add", [product, name], output)

    def _quantized_outputs(self, node: onnx.NodeProto, outputs: Sequence[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self._written.nodes.append(copy)
        for j, name in enumerate(node.output):
            if name in outputs:
                self._floats[name] = copy.output[j] = self._written.name(f"{name}_float")
                self._written.quantize(copy.output[j], name, self._plan.output_qparams[name])

    def _runs_on_integers(self, node: onnx.NodeProto) -> bool:
        if not self._options.for_cpu:
            return False
        old = node.op_type == "Pad" and self._graph.opset < AXIS_OPSET
        return (
            node.op_type in PASS_INTEGERS and node.input[0] in self._written.integers and not old
        )

    def _pass_integers(self, node: onnx.NodeProto) -> None:
        """Write a node that gets and gives the integers behind its tensors."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        tensor, params = node.output[0], self._plan.output_qparams[node.output[0]]
        scale, zero_point = self._written.params(tensor, params)
        copy.input[0] = self._written.integers[node.input[0]]
        if node.op_type == "Pad":
            # What the float node pads with is zero.
            copy.input.extend([""] * (3 - len(copy.input)))
            copy.input[2] = zero_point
        copy.output[0] = self._written.integers[tensor] = self._written.name(f"{tensor}_quantized")
        self._written.nodes.append(copy)
        inputs = [copy.output[0], scale, zero_point]
        self._written.dequantize(inputs, tensor, None, dtype=params.dtype)

    # Pairs.

    def _pair(self, tensor: str, params: Params, reader: str) -> str:
        """The tensor that readers of floats read instead, to see them quantized."""
        own = reader if self._options.dedicated_pairs else None
        key = ("pair", tensor, params, own)
        shared = self._written.shared
        if key not in shared:
            same = ("pairs of", tensor, params)
            self.repeated_pairs += same in self._seen
            self._seen.add(same)
            source = (
                self._written.barrier(tensor) if tensor in self._plan.needs_barrier else tensor
            )
            shared[key] = output = self._written.name(f"{tensor}_dequantized")
            self._written.quantize(source, output, params)
        return shared[key]

    def _with_dedicated_pairs(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A node with a pair of its own behind each tensor that is quantized where it is made.

        The first reader has the pair that is written there, unless others see its result.
        """
        if not self._options.dedicated_pairs or node.op_type in PASS_INTEGERS:
            return node
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for tensor in dict.fromkeys(name for name in node.input if name in self._floats):
            if tensor in self._seen:
                self.repeated_pairs += 1
                output = self._written.name(f"{tensor}_dequantized")
                self._written.quantize(
                    self._floats[tensor], output, self._plan.output_qparams[tensor]
                )
                for j, name in enumerate(node.input):
                    if name == tensor:
                        copy.input[j] = output
            self._seen.add(tensor)
        return copy


def _take_factors(node: onnx.NodeProto) -> tuple[float, float]:
    """Take ``alpha`` and ``beta`` off a Gemm; 1.0 for other nodes."""
    if node.op_type != "Gemm":
        return 1.0, 1.0
    attributes: Mapping[str, Any] = node_attributes(node)
    kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]
    del node.attribute[:]
    node.attribute.extend(kept)
    return float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
