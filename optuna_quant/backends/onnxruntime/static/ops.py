"""Which ops of a graph can be quantized statically, and how."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.dynamic.ops import dynamic_rule
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.kernel_forms import lacking_form
from optuna_quant.backends.onnxruntime.model.op_tables import FUSED_ACTIVATIONS
from optuna_quant.backends.onnxruntime.model.op_tables import PER_CHANNEL
from optuna_quant.backends.onnxruntime.model.op_tables import PER_TENSOR
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.backends.onnxruntime.model.op_tables import UNSIGNED
from optuna_quant.backends.onnxruntime.model.op_tables import StaticRule
from optuna_quant.backends.onnxruntime.static.matmul_add import MatMulAdd
from optuna_quant.backends.onnxruntime.static.matmul_add import find_matmul_add
from optuna_quant.backends.ranges.tensor_range import STANDS_FOR_INFINITY
from optuna_quant.space.capability import OnRequest
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


@dataclass(frozen=True)
class WeightSlot:
    """The weight of an op.

    Args:
        position:
            Which input it is.
        configs:
            The settings that are offered, the default first.
        axis:
            Its channel axis; None if it can only be quantized as a whole.
    """

    position: int
    configs: tuple[TensorConfig, ...]
    axis: int | None = None


@dataclass(frozen=True)
class StaticOp:
    """An op that can be quantized statically.

    Args:
        name:
            The node's name.
        op_type:
            The type in the tuning space, a key of
            :data:`~optuna_quant.backends.onnxruntime.model.op_tables.STATIC_RULES`.
        index:
            The node's position in the graph.
        activations:
            The inputs that are quantized as activations; constants are quantized like them.
        weight:
            The weight, if it has one.
        bias:
            The position of the bias, if it has one.
        fused:
            The output of the activation function behind it, if the runtime can fuse that.
        matmul_add:
            The Add behind a MatMul, if the runtime may fuse the two to a Gemm of floats.
        own_rule:
            What static quantization of it is on the target; None for what it is on the CPU.
        offered:
            The ways to quantize it on the target, the default first; None for those of the CPU.
        asked:
            Further ways on the target, which the user must ask for.
    """

    name: str
    op_type: str
    index: int
    activations: tuple[int, ...]
    weight: WeightSlot | None = None
    bias: int | None = None
    fused: str | None = None
    matmul_add: MatMulAdd | None = None
    own_rule: StaticRule | None = None
    offered: tuple[OpConfig, ...] | None = None
    asked: tuple[OnRequest, ...] = ()

    @property
    def rule(self) -> StaticRule:
        """What static quantization of it is."""
        return STATIC_RULES[self.op_type] if self.own_rule is None else self.own_rule

    def options(self) -> tuple[OpConfig, ...]:
        """The ways to quantize it, the default first; the activation's algorithm runs fastest."""
        return self._options(self.rule.activations) if self.offered is None else self.offered

    def on_request(self) -> tuple[OnRequest, ...]:
        """More ways, for those who name their algorithm; none if no activation has a range."""
        if self.offered is not None:
            return self.asked
        more = self._options(self.rule.activations_on_request if self.activations else ())
        fields = frozenset({"algorithm"})
        return tuple(OnRequest(option, fields, side="activation") for option in more)

    def _options(self, activations: Iterable[TensorConfig]) -> tuple[OpConfig, ...]:
        weights = self.weight.configs if self.weight else (None,)
        return tuple(
            OpConfig("static", activation, weight)
            for weight in weights
            for activation in activations
        )

    def reduced_axes(self, rank: int) -> tuple[int, ...]:
        """The axes of its weight that its product sums over.

        Args:
            rank:
                How many axes the weight has.
        """
        assert self.weight is not None
        if self.op_type == "Conv":
            return tuple(range(1, rank))
        if self.op_type == "ConvTranspose":
            return (0, *range(2, rank))
        if self.op_type == "Gemm":
            return (1,) if self.weight.axis == 0 else (0,)
        return (rank - 1,) if self.weight.position == 0 or rank == 1 else (rank - 2,)

    def output(self, node: onnx.NodeProto, scheme: str) -> str:
        """The tensor at which its result is quantized, if it owns its output.

        That is the output of a fused activation function. With the scheme ``"sym"`` there is none:
        the quantized range then reaches below zero, so it cannot do that function's work.
        """
        return self.fused if self.fused and scheme == "asym" else node.output[0]


def static_ops(graph: Graph) -> tuple[StaticOp, ...]:
    """The ops that can be quantized statically, in the order of the graph."""
    found = []
    for index, node in enumerate(graph.nodes):
        make = partial(StaticOp, node.name, index=index)
        if node.domain in ("", "ai.onnx"):
            op = _standard_op(make, node, graph)
        else:
            op = _layer(make, node, graph)
        if op is not None and node.op_type == "MatMul":
            op = replace(op, matmul_add=find_matmul_add(index, graph))
        if op is not None:
            found.append(op)
    return tuple(found)


_Make = Callable[..., StaticOp]


def _layer(make: _Make, node: onnx.NodeProto, graph: Graph) -> StaticOp | None:
    if node.op_type not in STATIC_RULES or not STATIC_RULES[node.op_type].layer:
        return None
    rule = dynamic_rule(node, graph)
    if rule is None:
        return None
    weight = WeightSlot(rule.constants[0], rule.weights, 1 if len(rule.weights) > 1 else None)
    reads = node.op_type == "Attention"
    return make(node.op_type, activations=(0,) if reads else (), weight=weight)


def _standard_op(make: _Make, node: onnx.NodeProto, graph: Graph) -> StaticOp | None:
    if node.op_type in ("Conv", "ConvTranspose"):
        return _conv(make, node, graph)
    if node.op_type == "MatMul":
        return _matmul(make, node, graph)
    if node.op_type == "Gemm":
        return _gemm(make, node, graph)
    if node.op_type in ("Gather", "GatherElements"):
        return _table(make, node, graph)
    if node.op_type not in STATIC_RULES or STATIC_RULES[node.op_type].layer:
        return None
    if node.op_type == "Resize" and node_attributes(node).get("mode", b"nearest") == b"nearest":
        return None  # gives values of its input on
    if node.op_type == "Mod" and not node_attributes(node).get("fmod", 0):
        return None
    if lacking_form(node):
        return None
    return _plain(make, node, graph, _activations(node))


def _activations(node: onnx.NodeProto) -> tuple[int, ...]:
    """The positions of the inputs that hold values."""
    if node.op_type in ("Add", "Mod", "Mul"):
        return (0, 1)
    if node.op_type == "Concat":
        return tuple(range(len(node.input)))
    return (1, 2) if node.op_type == "Where" else (0,)


def _conv(make: _Make, node: onnx.NodeProto, graph: Graph) -> StaticOp | None:
    if not (_is_activation(node.input[0], graph) and _is_weight(node.input[1], graph)):
        return None
    biased = len(node.input) > 2 and bool(node.input[2])
    if biased and not _is_weight(node.input[2], graph):
        return None
    axis: int | None = 0
    if node.op_type == "ConvTranspose":
        # Of several groups, the first output channels share a place on axis 1.
        axis = 1 if node_attributes(node).get("group", 1) == 1 else None
    weight = WeightSlot(1, _weight_configs(axis is not None), axis)
    return make(
        node.op_type,
        activations=(0,),
        weight=weight,
        bias=2 if biased else None,
        fused=_fused_output(node, graph),
    )


def _matmul(make: _Make, node: onnx.NodeProto, graph: Graph) -> StaticOp | None:
    left, right = node.input
    if not graph.is_constant(left) and not graph.is_constant(right):
        if not all(_is_activation(name, graph, sure=True) for name in node.input):
            return None
        return make("MatMulActivations", activations=(0, 1))
    if _is_activation(left, graph) and _is_weight(right, graph):
        # The runtime has per-channel kernels for matrices only, not for stacks of them.
        matrix = len(graph.initializers[right].dims) == 2
        slot = WeightSlot(1, _weight_configs(matrix), 1 if matrix else None)
        return make("MatMul", activations=(0,), weight=slot)
    if _is_weight(left, graph) and _is_activation(right, graph):
        # On this side the runtime has kernels for unsigned integers only.
        return make("MatMul", activations=(1,), weight=WeightSlot(0, (UNSIGNED,)))
    return None


def _gemm(make: _Make, node: onnx.NodeProto, graph: Graph) -> StaticOp | None:
    if not (_is_activation(node.input[0], graph) and _is_weight(node.input[1], graph)):
        return None
    axis = 0 if node_attributes(node).get("transB", 0) else 1
    biased = len(node.input) > 2 and bool(node.input[2])
    if biased:
        if not _is_weight(node.input[2], graph):
            return None
        channels = graph.initializers[node.input[1]].dims[axis]
        shape = tuple(graph.initializers[node.input[2]].dims)
        if shape not in ((), (1,), (1, 1), (channels,), (1, channels)):
            return None  # a value for each row, which no kernel has
    weight = WeightSlot(1, _weight_configs(True), axis)
    return make("Gemm", activations=(0,), weight=weight, bias=2 if biased else None)


def _table(make: _Make, node: onnx.NodeProto, graph: Graph) -> StaticOp | None:
    if not _is_weight(node.input[0], graph) or not graph.initializers[node.input[0]].dims:
        return None
    # Not per channel: the rows that are read would be on different grids.
    return make(node.op_type, activations=(), weight=WeightSlot(0, (UNSIGNED,)))


def _plain(
    make: _Make, node: onnx.NodeProto, graph: Graph, positions: tuple[int, ...]
) -> StaticOp | None:
    names = [node.input[i] for i in positions]
    if not all(_is_activation(name, graph, sure=True, constant=True) for name in names):
        return None
    constants = [graph.array(name) for name in names if graph.is_constant(name)]
    if len(constants) == len(names):
        return None
    if not all(np.all(np.abs(array) < STANDS_FOR_INFINITY) for array in constants):
        return None  # a mask, beside which nothing would be left of the rest; false for NaN
    return make(node.op_type, activations=positions, fused=_fused_output(node, graph))


def _weight_configs(per_channel: bool) -> tuple[TensorConfig, ...]:
    return (PER_CHANNEL, PER_TENSOR) if per_channel else (PER_TENSOR,)


def _is_weight(name: str, graph: Graph) -> bool:
    return graph.is_weight(name)


def _is_activation(name: str, graph: Graph, *, sure: bool = False, constant: bool = False) -> bool:
    """Whether a tensor is a 32-bit float that is computed, or (``constant``) given.

    Behind operators whose types cannot be inferred that is not known; beside a weight of 32-bit
    floats it follows, and otherwise one has to be ``sure``. What comes from a default that callers
    may replace has no range that calibration could tell.
    """
    if not name or name in graph.defaults or (graph.is_constant(name) and not constant):
        return False
    is_float = graph.is_float(name)
    return bool(is_float) or (is_float is None and not sure)


def _fused_output(node: onnx.NodeProto, graph: Graph) -> str | None:
    index = graph.only_reader(node.output[0])
    if index is None:
        return None
    reader = graph.nodes[index]
    if reader.op_type not in FUSED_ACTIVATIONS or reader.domain:
        return None
    if reader.op_type == "Clip" and (clip_bounds(reader, graph) or (None,))[0] != 0.0:
        return None  # only a range from zero on is sure to lie within the quantized one
    return str(reader.output[0])


def clip_bounds(node: onnx.NodeProto, graph: Graph) -> tuple[float | None, float | None] | None:
    """The least and the greatest value that a Clip lets pass.

    Args:
        node:
            The Clip.
        graph:
            Its graph.

    Returns:
        Two numbers, None for a bound that it lacks; None if a bound is computed by the model.
    """
    if graph.opset < 11:
        attributes = node_attributes(node)
        low, high = (attributes.get(name) for name in ("min", "max"))
        return (None if low is None else float(low)), (None if high is None else float(high))
    names = (*node.input[1:3], "", "")[:2]
    if not all(graph.is_constant(name) for name in names if name):
        return None
    low, high = (float(graph.array(name).reshape(())) if name else None for name in names)
    return low, high


def check_static(op: StaticOp, config: OpConfig) -> None:
    """Check that an op can be quantized as a configuration says.

    More is possible than is offered: signed and symmetric activations, those of 16 bits, unsigned
    weights.

    Raises:
        ValueError:
            If it cannot.
    """
    problem = _problem(op, config)
    if problem:
        offered = "; ".join(option.label for option in op.options())
        raise ValueError(
            f"Op {op.name!r} ({op.op_type}) cannot run as {config.label!r}: {problem}. "
            f"Its static options are: {offered}."
        )


def _problem(op: StaticOp, config: OpConfig) -> str | None:
    activation, weight = config.activation, config.weight
    if activation is None or activation.dtype not in ("uint8", "int8", "uint16", "int16"):
        return "activations are quantized to 8 or 16 bits"
    if activation.granularity != "per_tensor":
        return "activations are quantized per tensor"
    if op.weight is None:
        return None if weight is None else "it has no weight"
    if weight is None or weight.dtype not in ("uint8", "int8"):
        return "its weight is quantized to 8 bits"
    if weight.granularity == "per_tensor":
        return None
    if weight.granularity != "per_channel" or op.weight.axis is None:
        return f"its weight cannot be quantized {weight.granularity}"
    return None
