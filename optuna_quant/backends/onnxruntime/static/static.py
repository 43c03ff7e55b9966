"""Where the tensors of a graph are quantized when some of its ops run in static mode.

An op in static mode reads quantized activations. Where it reads a tensor of floats, it does so
through a Q/DQ pair of its own settings; readers that want the same parameters share the pair, and
ops in fallback read the floats. Some ops write integers: they quantize their output, and an op
that reads it reads that. Operators that only pass values on keep the parameters of what they are
given, which costs nothing in accuracy and lets the runtime run them on integers.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TypeAlias

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.kernel_forms import lacking_form
from optuna_quant.backends.onnxruntime.model.op_tables import FUSED_ACTIVATIONS
from optuna_quant.backends.onnxruntime.static.matmul_add import GemmForm
from optuna_quant.backends.onnxruntime.static.ops import StaticOp
from optuna_quant.backends.onnxruntime.static.ops import clip_bounds
from optuna_quant.backends.onnxruntime.static.passing import passing_nodes
from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.ranges.qparams import middle_of
from optuna_quant.backends.ranges.tensor_range import MissingRangesError
from optuna_quant.backends.ranges.tensor_range import NoRangeError
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_PRODUCTS = frozenset({"Gemm", "MatMul", "MatMulActivations"})
_FUSED_WITH_GEMM = frozenset({"Sum", "Transpose"})
_TRANSPARENT = frozenset(
    {"Dropout", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that the runtime removes, or before which it moves a quantization behind them."""


FindParams: TypeAlias = Callable[[str, TensorConfig], Params]
"""Gives the parameters for a tensor of the graph by what calibration has learnt.

It raises a NoRangeError where that gives none.
"""


@dataclass(frozen=True)
class Plan:
    """Where tensors are quantized.

    Args:
        ops:
            The ops in static mode and their configurations, by the node's position.
        output_qparams:
            Parameters of the tensors that are quantized where they are written, for all readers.
        input_qparams:
            Parameters of the pair through which an input of a node is read; by the positions of
            the node and of the input.
        needs_barrier:
            Tensors of floats whose pairs the runtime must not take for a part of what makes them.
        unfused:
            Inputs, by the positions of the node and of the input, of nodes that it must not take
            for a part of the product before them.
        gemms:
            MatMuls that are written as a Gemm, by the node's position.
    """

    ops: Mapping[int, tuple[StaticOp, OpConfig]]
    output_qparams: Mapping[str, Params] = field(default_factory=dict)
    input_qparams: Mapping[tuple[int, int], Params] = field(default_factory=dict)
    needs_barrier: frozenset[str] = frozenset()
    unfused: frozenset[tuple[int, int]] = frozenset()
    gemms: Mapping[int, GemmForm] = field(default_factory=dict)


class Planner:
    """Makes plans for one graph.

    Args:
        graph:
            The graph.
        fuses:
            Whether the runtime makes the CPU's integer kernels of pairs and of what is between
            them, so that it must be kept from doing so where that would be wrong.
    """

    def __init__(self, graph: Graph, *, fuses: bool = True) -> None:
        self._graph = graph
        self._fuses = fuses
        self._passed = passing_nodes(graph)

    def plan(
        self,
        ops: Mapping[int, tuple[StaticOp, OpConfig]],
        find: FindParams,
        table_params: Callable[[StaticOp, OpConfig], Params],
        *,
        float_outputs: Container[str] = (),
    ) -> Plan:
        """Decide where to quantize.

        Args:
            ops:
                The ops in static mode and their configurations, by the node's position.
            find:
                Gives the parameters for a tensor.
            table_params:
                Gives those of an op that reads rows of a quantized table.
            float_outputs:
                The operators whose outputs are not quantized with them.

        Raises:
            MissingRangesError:
                If ops need the parameters of tensors that have none.
        """
        graph = self._graph
        output_qparams: dict[str, Params] = {}
        missing: dict[int, NoRangeError] = {}
        input_qparams: dict[tuple[int, int], Params] = {}
        # Tensors whose values are on a grid, and which of them a node has passed on.
        grid: dict[str, Params] = {}
        passed_by: dict[str, int] = {}

        def materialize(tensor: str) -> None:
            while tensor not in output_qparams:
                i = passed_by[tensor]
                output_qparams.update((name, grid[name]) for name in self._passed[i])
                tensor = graph.nodes[i].input[0]

        def params(i: int, tensor: str, config: TensorConfig) -> Params:
            try:
                return find(tensor, config)
            except NoRangeError as error:
                missing.setdefault(i, error)
                return Params(1.0, 0, config.dtype)

        for i in sorted({*ops, *self._passed}):
            node = graph.nodes[i]
            if i in ops:
                op, config = ops[i]
                assert config.activation is not None
                for position in op.activations:
                    tensor = node.input[position]
                    if tensor in grid:
                        materialize(tensor)
                    if not graph.is_constant(tensor) and not (
                        tensor in grid and self._takes(grid[tensor], config.activation)
                    ):
                        input_qparams[i, position] = params(i, tensor, config.activation)
                if op.rule.owns_output and node.op_type not in float_outputs:
                    tensor = op.output(node, config.activation.scheme)
                    reads_table = not op.activations
                    output_qparams[tensor] = (
                        table_params(op, config)
                        if reads_table
                        else params(i, tensor, config.activation)
                    )
                    grid[tensor] = output_qparams[tensor]
            elif node.input[0] in grid:
                for tensor in self._passed[i]:
                    grid[tensor] = grid[node.input[0]]
                    passed_by[tensor] = i
        if missing:
            raise MissingRangesError(missing)
        if not self._fuses:
            return Plan(ops, output_qparams, input_qparams)
        tensors = {graph.nodes[i].input[position] for i, position in input_qparams}
        gemms = _gemms(ops)
        results = _results(ops, gemms, graph)
        needs_barrier = {
            tensor
            for tensor in tensors
            if self._is_shared(tensor, results, input_qparams)
            or self._leaks(tensor, ops, grid)
            or self._would_change_output(tensor)
            or self._is_made_otherwise(tensor)
        }
        unfused = {*self._unfused(ops, gemms, input_qparams), *_unfused_adds(ops)}
        return Plan(
            ops, output_qparams, input_qparams, frozenset(needs_barrier), frozenset(unfused), gemms
        )

    def _takes(self, grid: Params, config: TensorConfig) -> bool:
        """Whether an op of such a configuration reads values as they are on a grid."""
        if self._fuses:
            return TensorConfig(grid.dtype).bits == config.bits
        return grid.dtype == config.dtype and (
            config.scheme == "asym" or grid.zero_point == middle_of(grid.dtype)
        )

    def _is_shared(
        self,
        tensor: str,
        results: Container[str],
        input_qparams: Mapping[tuple[int, int], Params],
    ) -> bool:
        """Whether a product in static mode has a pair and also something else behind it.

        The runtime fuses a product with what quantizes its output, and where it cannot because
        others want the floats it runs the product in floats.
        """
        if self._only_pair(tensor, input_qparams) is None:
            return any(source in results for source, _ in self._same(tensor))
        return any(source in results and not alone for source, alone in self._same(tensor))

    def _same(self, tensor: str) -> Iterator[tuple[str, bool]]:
        """The tensors that the runtime takes for this one, and whether no other op reads them.

        Those are the tensor itself, and what is before Transposes that undo each other, from where
        on a quantization may have been moved behind them.
        """
        graph = self._graph
        order: Sequence[int] | None = None
        alone = True
        yield tensor, alone
        while (i := graph.producer.get(tensor)) is not None:
            node = graph.nodes[i]
            if node.domain or node.op_type not in _TRANSPARENT:
                return
            if node.op_type == "Transpose":
                perm = _perm(node, graph)
                if perm is None:
                    return
                order = perm if order is None else [perm[axis] for axis in order]
            elif order is not None:
                return
            tensor = node.input[0]
            alone = alone and graph.only_reader(tensor) is not None
            if order is not None and list(order) == sorted(order):
                yield tensor, alone

    def _only_pair(
        self, tensor: str, input_qparams: Mapping[tuple[int, int], Params]
    ) -> Params | None:
        """The parameters of the pair that alone reads a tensor; None if others see its floats."""
        graph = self._graph
        pairs = {input_qparams.get(place) for place in graph.readers.get(tensor, ())}
        if len(pairs) != 1 or tensor in graph.outputs or tensor in graph.captured:
            return None
        return pairs.pop()

    def _unfused(
        self,
        ops: Mapping[int, tuple[StaticOp, OpConfig]],
        gemms: Mapping[int, GemmForm],
        input_qparams: Mapping[tuple[int, int], Params],
    ) -> Iterator[tuple[int, int]]:
        """What would keep the product before it off the integer kernels.

        The runtime takes an activation function for a part of the quantization behind it, and
        where it finds that it is not it runs the product in floats. A Gemm it fuses with a
        Transpose, and one without a bias with a Sum, to a Gemm in floats.
        """
        graph = self._graph
        for index, (op, _) in ops.items():
            if op.op_type not in _PRODUCTS:
                continue
            gemm = gemms.get(index)
            tensor = graph.nodes[index].output[0] if gemm is None else gemm.result
            is_gemm = op.op_type == "Gemm" or (gemm is not None and gemm.shape is None)
            alone = graph.only_reader(tensor) is not None
            for i, position in graph.readers.get(tensor, ()):
                if is_gemm and graph.nodes[i].op_type in _FUSED_WITH_GEMM:
                    yield i, position
                elif position == 0 and _is_activation_function(graph.nodes[i]):
                    ends = not graph.readers.get(graph.nodes[i].output[0])
                    if not (alone and (ends or self._vanishes(i, input_qparams))):
                        yield i, position

    def _vanishes(self, i: int, input_qparams: Mapping[tuple[int, int], Params]) -> bool:
        """Whether the quantization behind an activation function does its work."""
        graph = self._graph
        functions = [graph.nodes[i]]
        tensor = graph.nodes[i].output[0]
        while (reader := graph.only_reader(tensor)) is not None:
            node = graph.nodes[reader]
            if _is_activation_function(node):
                functions.append(node)
            elif node.domain or node.op_type not in _TRANSPARENT:
                break
            tensor = node.output[0]
        params = self._only_pair(tensor, input_qparams)
        return params is not None and all(_is_covered(f, params, graph) for f in functions)

    def _would_change_output(self, tensor: str) -> bool:
        """Whether a pair behind a Transpose would quantize an output of the model before it.

        The runtime quantizes first and transposes integers, and has that output dequantized.
        """
        graph = self._graph
        transposed = False
        while (i := graph.producer.get(tensor)) is not None:
            node = graph.nodes[i]
            if node.domain or node.op_type not in _TRANSPARENT | FUSED_ACTIVATIONS:
                return False
            transposed = transposed or node.op_type == "Transpose"
            tensor = node.input[0]
            if transposed and tensor in graph.outputs:
                return True
        return False

    def _is_made_otherwise(self, tensor: str) -> bool:
        """Whether a pair would put what makes a tensor on an integer kernel that is wrong for it.

        Between quantized values and a pair the runtime also takes the integer kernels of ops that
        are to run in floats.
        """
        graph = self._graph
        while (i := graph.producer.get(tensor)) is not None:
            node = graph.nodes[i]
            if lacking_form(node):
                return True
            if i not in self._passed and node.op_type not in FUSED_ACTIVATIONS:
                return False
            tensor = node.input[0]
        return False

    def _leaks(self, tensor: str, ops: Container[int], grid: Container[str]) -> bool:
        """Whether an op in fallback would be quantized because of a pair behind it.

        Where quantized values come in and a pair follows, the runtime quantizes the weights of
        what is between as well, by its own rules.
        """
        graph = self._graph
        while (i := graph.producer.get(tensor)) is not None and i not in ops:
            node = graph.nodes[i]
            if node.op_type in _WEIGHTED:
                return graph.is_constant(node.input[1]) and node.input[0] in grid
            if i not in self._passed and node.op_type not in FUSED_ACTIVATIONS:
                return False
            tensor = node.input[0]
        return False


def _perm(node: onnx.NodeProto, graph: Graph) -> Sequence[int] | None:
    """The order of axes that a Transpose brings about; None if it is not known."""
    perm: Sequence[int] | None = node_attributes(node).get("perm")
    shape = graph.shapes.get(node.input[0])
    if perm is None and shape is not None:
        return range(len(shape) - 1, -1, -1)
    return perm


def _gemms(ops: Mapping[int, tuple[StaticOp, OpConfig]]) -> dict[int, GemmForm]:
    """How MatMuls are written as a Gemm; not those before an Add that reads integers."""
    found = {}
    for index, (op, _) in ops.items():
        behind = op.matmul_add
        if behind is not None and behind.gemm is not None and behind.add not in ops:
            found[index] = behind.gemm
    return found


def _unfused_adds(
    ops: Mapping[int, tuple[StaticOp, OpConfig]],
) -> Iterator[tuple[int, int]]:
    """What reads a MatMul that cannot be written as a Gemm, where the runtime may do so."""
    for op, _ in ops.values():
        behind = op.matmul_add
        if behind is not None and behind.gemm is None and behind.add not in ops:
            yield behind.reader


def _results(
    ops: Mapping[int, tuple[StaticOp, OpConfig]], gemms: Mapping[int, GemmForm], graph: Graph
) -> frozenset[str]:
    """The tensors that nodes in static mode make."""
    made = {name for i in ops if i not in gemms for name in graph.nodes[i].output}
    # Behind a Reshape the runtime sees only what reads all of it.
    made.update(gemm.result for gemm in gemms.values() if gemm.shape is None)
    return frozenset(made)


def _is_activation_function(node: onnx.NodeProto) -> bool:
    return node.op_type in FUSED_ACTIVATIONS and not node.domain


def _is_covered(node: onnx.NodeProto, params: Params, graph: Graph) -> bool:
    """Whether an activation function gives on all values in the range of the quantized ones."""
    limits = np.iinfo(params.dtype)
    if node.op_type == "Relu":
        return params.zero_point == limits.min
    bounds = clip_bounds(node, graph)
    if bounds is None:
        return False
    least, greatest = (
        (integer - params.zero_point) * params.scale for integer in (limits.min, limits.max)
    )
    low, high = bounds
    rounding = float(np.finfo(np.float32).eps)
    return (low is None or low <= least + rounding) and (
        high is None or high >= greatest - rounding
    )
