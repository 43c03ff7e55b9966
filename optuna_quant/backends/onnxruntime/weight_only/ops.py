"""Which ops of a graph can have weights of a few bits alone, and how."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.weight_algorithms.quantize import FLOAT_ZERO_POINTS
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.weight_algorithms.quantize import WEIGHT_ONLY_ALGORITHMS
from optuna_quant.space.capability import OnRequest
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna_quant.backends.onnxruntime.model.graph import Graph


OP_TYPES = frozenset({"Gather", "Gemm", "MatMul"})
"""The standard operators that weight-only quantization takes."""

INT8_LEVEL = 4
"""The accuracy level at which the product is computed on int8 activations."""
FLOAT_LEVEL = 0

_BITS = (4, 8, 2)
_OTHERS_BITS = 8
"""The bits of weights in static and dynamic mode."""
_GROUPS = (32, 64, 128, 16, 256)
_SCHEMES = ("asym", "sym")
_LEAST_TABLE_PART = 0.01


@dataclass(frozen=True)
class WeightOnlyOp:
    """An op whose weight alone can be quantized.

    Args:
        name:
            The op's name.
        op_type:
            ``"MatMul"``, ``"Gemm"``, or ``"Gather"`` for an embedding table.
        weight:
            The initializer.
        outputs:
            How many output values the weight makes of an input; the rows of a table.
        inputs:
            How many values are summed over; the columns of a table.
        transposed:
            Whether the initializer is stored as ``[inputs, outputs]``.
        activation:
            The tensor that is multiplied with it; None for a table.
    """

    name: str
    op_type: str
    weight: str
    outputs: int
    inputs: int
    transposed: bool
    activation: str | None

    @property
    def is_table(self) -> bool:
        """Whether its rows are looked up, not multiplied."""
        return self.activation is None


def weight_only_op(node: onnx.NodeProto, graph: Graph) -> WeightOnlyOp | None:
    """A node as an op whose weight alone can be quantized; None if it cannot be."""
    if lacking_weight_only(node, graph) is not None:
        return None
    if node.op_type == "Gather":
        rows, columns = graph.initializers[node.input[0]].dims
        return WeightOnlyOp(node.name, "Gather", node.input[0], rows, columns, False, None)
    is_turned = node.op_type == "MatMul" or not node_attributes(node).get("transB", 0)
    first, second = graph.initializers[node.input[1]].dims
    outputs, inputs = (second, first) if is_turned else (first, second)
    return WeightOnlyOp(
        node.name, node.op_type, node.input[1], outputs, inputs, is_turned, node.input[0]
    )


def lacking_weight_only(node: onnx.NodeProto, graph: Graph) -> str | None:
    """What weight-only quantization lacks in a node; None if nothing."""
    if node.op_type not in OP_TYPES or node.domain not in ("", "ai.onnx"):
        return f"weight-only quantization takes {', '.join(sorted(OP_TYPES))} only"
    position = 0 if node.op_type == "Gather" else 1
    name = node.input[position]
    if not graph.is_weight(name):
        return f"its input {position}, {name!r}, is not a constant of finite 32-bit floats"
    dims = graph.initializers[name].dims
    if len(dims) != 2 or not all(dims):
        return f"its weight has the shape {list(dims)}; weight-only quantization takes matrices"
    if node.op_type == "Gather":
        if node_attributes(node).get("axis", 0) % 2:
            return "it reads columns of its table, not rows"
        return None if dims[1] % 2 == 0 else "its table has an odd number of columns"
    activation = node.input[0]
    if graph.is_constant(activation):
        return "both of its operands are constants"
    if graph.is_float(activation) is False:
        return f"its input {activation!r} is not of 32-bit floats"
    shape = graph.shapes.get(activation)
    if shape is not None and len(shape) < 2:
        return f"its input {activation!r} is a vector"
    return None


def needs_inputs(option: OpConfig) -> bool:
    """Whether the algorithm of an option needs the moments of the op's inputs."""
    weight = option.weight
    return option.mode == "weight_only" and weight is not None and weight.algorithm in NEEDS_INPUTS


def is_worth_it_by_default(op: WeightOnlyOp, total_bytes: int) -> bool:
    """Whether an op is tuned unless the user asks otherwise; a small table is not.

    Args:
        op:
            The op.
        total_bytes:
            The size of all floating-point constants of the model.
    """
    return not op.is_table or 4 * op.outputs * op.inputs >= _LEAST_TABLE_PART * total_bytes


def weight_only_options(
    op: WeightOnlyOp, *, has_data: bool, beside_others: bool = False
) -> tuple[tuple[OpConfig, ...], tuple[OnRequest, ...]]:
    """The ways to quantize the weight of an op, the default first, and those on request.

    By default there are 4 bits in groups of 32 with a zero point each, at the accuracy level that
    is fast, with the algorithms that :data:`_USUAL` names; GPTQ in groups of 128 as well; RTN in
    floats, and with 8 bits.

    Args:
        op:
            The op.
        has_data:
            Whether there are calibration data, which some algorithms need.
        beside_others:
            Whether they stand beside static and dynamic options: then all are on request, by the
            mode, or by bits that those do not have.
    """
    offered: list[OpConfig] = []
    on_request: list[OnRequest] = []
    group = _usual_group(op.inputs)
    for config in _all_options(op, has_data=has_data):
        fields = _special(config, group)
        if beside_others:
            assert config.weight is not None
            if config.weight.bits != _OTHERS_BITS:
                on_request.append(OnRequest(config, fields | {"bits"}))
            fields |= {"mode"}
        if fields:
            on_request.append(OnRequest(config, fields))
        else:
            offered.append(config)
    return tuple(offered), tuple(on_request)


_USUAL = ("rtn", "gptq", "awq")
_WIDE_GROUP = 128


def _usual_group(inputs: int) -> int | None:
    return next((size for size in (32, 16) if size < inputs), None)


def _special(config: OpConfig, group: int | None) -> frozenset[str]:
    """The fields in which an option is not the usual one."""
    weight, level = config.weight, config.accuracy_level
    assert weight is not None
    plain = weight.algorithm == "rtn"
    found = set()
    if weight.bits == 2 or (weight.bits == 8 and not plain):
        found.add("bits")
    if weight.algorithm not in _USUAL:
        found.add("algorithm")
    if weight.scheme != "asym":
        found.add("scheme")
    is_wide = weight.algorithm == "gptq" and weight.group_size == _WIDE_GROUP
    if weight.group_size != group and not is_wide:
        found.add("granularity" if weight.group_size is None else "group_size")
    usual_level = weight.algorithm in FLOAT_ZERO_POINTS or (plain and weight.bits == 4)
    if level == FLOAT_LEVEL and not usual_level:
        found.add("accuracy_level")
    return frozenset(found)


def _all_options(op: WeightOnlyOp, *, has_data: bool) -> Iterator[OpConfig]:
    algorithms = [
        name
        for name in WEIGHT_ONLY_ALGORITHMS
        if name not in NEEDS_INPUTS or (has_data and not op.is_table)
    ]
    groups: list[int | None] = [size for size in _GROUPS if size < op.inputs]
    levels = (None,) if op.is_table else (INT8_LEVEL, FLOAT_LEVEL)
    # The first of all is the default; then the algorithms, the levels, the bits.
    for bits, level, algorithm in product(_BITS, levels, algorithms):
        for size, scheme in product((*groups, None), _SCHEMES):
            granularity = "per_channel" if size is None else "per_group"
            weight = TensorConfig(f"int{bits}", scheme, granularity, algorithm, size)
            config = OpConfig("weight_only", weight=weight, accuracy_level=level)
            if weight_only_problem(op, config) is None:
                yield config


def weight_only_problem(op: WeightOnlyOp, config: OpConfig) -> str | None:
    """Why an op cannot have such a weight; None if it can.

    More is possible than is offered: groups that are larger than the weight.
    """
    weight, level = config.weight, config.accuracy_level
    assert weight is not None
    if weight.dtype not in ("int2", "int4", "int8"):
        return "its weight is quantized to int2, int4 or int8"
    if weight.granularity == "per_tensor":
        return "its weight is quantized per_group or per_channel"
    if weight.group_size is not None and weight.group_size not in _GROUPS:
        return f"the sizes of groups are {', '.join(map(str, sorted(_GROUPS)))}"
    if weight.algorithm not in WEIGHT_ONLY_ALGORITHMS:
        return f"the algorithms are {', '.join(WEIGHT_ONLY_ALGORITHMS)}"
    if weight.algorithm in FLOAT_ZERO_POINTS:
        if weight.scheme != "asym":
            return f"{weight.algorithm} is for asymmetric weights"
        if op.is_table or weight.bits == 8:
            return f"the kernel takes {weight.algorithm} for products with 2 or 4 bits alone"
    if op.is_table:
        if level is not None:
            return "a table has no accuracy level"
        if weight.algorithm in NEEDS_INPUTS:
            return f"{weight.algorithm} is for weights of products"
        if op.inputs * weight.bits % 8:
            return f"rows of {op.inputs} values of {weight.bits} bits are no whole bytes"
        return None
    if weight.algorithm in FLOAT_ZERO_POINTS and level == INT8_LEVEL:
        return f"{weight.algorithm} computes in floats: accuracy level {FLOAT_LEVEL}"
    if level not in (None, FLOAT_LEVEL, INT8_LEVEL):
        return f"the accuracy levels are {FLOAT_LEVEL} and {INT8_LEVEL}"
    if level == INT8_LEVEL and weight.bits == 2 and block_size(op, weight.group_size) in (16, 256):
        # Seen with ONNX Runtime 1.32: it computes in floats there, forty times slower.
        return "with 2 bits the groups at that accuracy level are 32, 64 or 128"
    return None


def block_size(op: WeightOnlyOp, group_size: int | None) -> int:
    """The size of the kernel's blocks, a power of two from 16 on.

    One scale for a whole channel is one block for a table. For a product it is repeated in blocks
    of at most 256: a single block would be padded to a power of two, up to twice the size, and
    the kernels with 2 bits take no more.
    """
    if group_size is not None:
        return group_size
    whole = max(16, 1 << (op.inputs - 1).bit_length())
    return whole if op.is_table else min(256, whole)


def check_weight_only(op: WeightOnlyOp, config: OpConfig) -> None:
    """Check that an op can be quantized as a configuration says.

    Raises:
        ValueError:
            If it cannot.
    """
    problem = weight_only_problem(op, config)
    if problem:
        raise ValueError(
            f"Op {op.name!r} ({op.op_type}) cannot run as {config.label!r}: {problem}."
        )
