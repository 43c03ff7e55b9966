"""A MatMul with an Add behind it.

Before the runtime looks for what can run on integers it makes one Gemm of the two. The Add's other
operand is of floats, so that Gemm stays one of floats, and its weight is dequantized in each run.
What is written as a Gemm from the start, with a bias of integers or with none, it leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.graph import Shape


@dataclass(frozen=True)
class GemmForm:
    """How a MatMul is written as a Gemm.

    Args:
        bias:
            The constant that becomes the bias of the Gemm, which then does the Add's work; None
            if the Add stays.
        absorbed:
            With a bias: the nodes, by position, whose work the Gemm does.
        result:
            The tensor that it makes.
        shape:
            The shape of that as a Reshape takes it, if the operands are no matrices and have to be
            made such; None otherwise.
    """

    bias: str | None
    absorbed: tuple[int, ...]
    result: str
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class MatMulAdd:
    """A MatMul that the runtime may fuse with an Add behind it.

    Args:
        add:
            The position of the Add.
        reader:
            What reads the product, as the positions of the node and of its input: the Add, or an
            operator before it that the runtime removes.
        gemm:
            How to write it as a Gemm; None if that is not possible, because shapes are not known.
    """

    add: int
    reader: tuple[int, int]
    gemm: GemmForm | None


def find_matmul_add(index: int, graph: Graph) -> MatMulAdd | None:
    """Tell whether the runtime may make a Gemm of a MatMul and an Add behind it.

    Args:
        index:
            The position of the MatMul.
        graph:
            Its graph.
    """
    node = graph.nodes[index]
    path = list(_path_to_add(node.output[0], graph))
    if not path or graph.nodes[path[-1]].op_type != "Add":
        return None
    add = graph.nodes[path[-1]]
    product = node.output[0] if len(path) == 1 else graph.nodes[path[-2]].output[0]
    other = add.input[1] if add.input[0] == product else add.input[0]
    left, right = (graph.shapes.get(name) for name in node.input)
    if not _may_fuse(left, right, graph.shapes.get(other), graph):
        return None
    (reader,) = graph.readers[node.output[0]]
    return MatMulAdd(path[-1], reader, _gemm_form(node, path, other, graph))


def find_constant_add(index: int, graph: Graph) -> tuple[int, int] | None:
    """The Add that alone reads a product and adds the same to each row of it.

    Args:
        index:
            The position of the product.
        graph:
            Its graph.

    Returns:
        The position of the Add and that of its constant among its inputs; None if there is none.
    """
    tensor = graph.nodes[index].output[0]
    reader = graph.only_reader(tensor)
    if reader is None:
        return None
    add = graph.nodes[reader]
    if add.op_type != "Add" or add.domain:
        return None
    position = 1 if add.input[0] == tensor else 0
    name = add.input[position]
    if not (graph.is_constant(name) and graph.is_float(name)):
        return None
    dims = graph.initializers[name].dims
    product = graph.shapes.get(tensor)
    # A constant of more axes, or of more than one row, would give the result another shape.
    fits = len(dims) <= (1 if product is None else len(product))
    return (reader, position) if fits and all(size == 1 for size in dims[:-1]) else None


def may_fuse_with_vector(index: int, graph: Graph) -> bool:
    """Whether the runtime may make a Gemm of a MatMul and a vector that is added to it.

    Args:
        index:
            The position of the MatMul, whose second operand is a matrix.
        graph:
            Its graph.
    """
    left, right = (graph.shapes.get(name) for name in graph.nodes[index].input)
    columns = None if right is None else right[-1]
    return _may_fuse(left, right, (columns,), graph)


def _path_to_add(tensor: str, graph: Graph) -> Iterator[int]:
    """The nodes from a tensor to the first one that the runtime does not remove."""
    while (reader := graph.only_reader(tensor)) is not None:
        yield reader
        if not _is_removed(graph.nodes[reader], tensor, graph):
            return
        tensor = graph.nodes[reader].output[0]


def _is_removed(node: onnx.NodeProto, tensor: str, graph: Graph) -> bool:
    """Whether the runtime removes a node that reads a tensor of floats, as doing nothing."""
    if node.domain:
        return False
    if node.op_type == "Cast":
        to = node_attributes(node).get("to")
        return to == onnx.TensorProto.FLOAT and graph.is_float(tensor) is True
    if node.op_type not in _NEUTRAL or len(node.input) != 2:
        return False
    neutral, either_side = _NEUTRAL[node.op_type]
    position = 1 if node.input[0] == tensor else 0
    if position == 0 and not either_side:
        return False
    name = node.input[position]
    if not graph.is_constant(name) or sum(graph.initializers[name].dims) > 1:
        return False
    return bool(np.all(graph.array(name) == neutral))


_NEUTRAL = {"Add": (0.0, True), "Div": (1.0, False), "Mul": (1.0, True), "Sub": (0.0, False)}
"""The number with which an operator does nothing, and whether it may stand on either side."""


def _may_fuse(left: Shape | None, right: Shape | None, bias: Shape | None, graph: Graph) -> bool:
    """Whether the runtime may fuse operands and a bias of such shapes, where they are known."""
    if right is not None and len(right) != 2:
        return False
    if bias is not None:
        most = 1 if left is not None and len(left) != 2 else 2
        if not 1 <= len(bias) <= most:
            return False
        columns = None if right is None else right[1]
        row = len(bias) == 1 or bias[0] == 1
        if row and None not in (columns, bias[-1]) and columns != bias[-1]:
            return False
    if left is None or len(left) == 2 or None not in left:
        return True
    # Of more than two axes it wants to know all. Where the inputs' are known it may find out more.
    return _has_fixed_inputs(graph)


def _has_fixed_inputs(graph: Graph) -> bool:
    shapes = [graph.shapes.get(name) for name in graph.inputs]
    return all(shape is not None and None not in shape for shape in shapes)


def _gemm_form(node: onnx.NodeProto, path: list[int], other: str, graph: Graph) -> GemmForm | None:
    left, right = (graph.shapes.get(name) for name in node.input)
    if left is None or right is None:
        return None
    shape = None
    if len(left) != 2:
        sizes = [*left[:-1], right[1]]
        known = [size for size in sizes if size]
        if len(known) < len(sizes) or graph.is_constant(node.input[0]):
            return None
        # The first size is left to the runtime: some exporters note that of the batch they had.
        shape = (-1, *known[1:]) if len(left) > 1 else tuple(known)
    columns = right[1]
    rows = {(columns,)} if shape is not None else {(columns,), (1, columns)}
    is_bias = graph.is_constant(other) and graph.is_float(other) and graph.shapes[other] in rows
    if is_bias and graph.is_constant(node.input[1]):
        result = graph.nodes[path[-1]].output[0]
        return GemmForm(other, tuple(path), result, shape)
    return GemmForm(None, (), node.output[0], shape)
