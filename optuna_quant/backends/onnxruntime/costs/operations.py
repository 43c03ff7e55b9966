"""How many multiply-adds each node of a model makes, from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import math
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    import onnx


Shapes = Mapping[str, tuple[int, ...]]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def needed_tensors(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """The tensors whose shapes :func:`multiply_adds` needs."""
    counted = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Attention", *_GATES}
    return [
        name
        for node in nodes
        if node.op_type in counted
        for name in (*node.input[:3], node.output[0])
        if name
    ]


def multiply_adds(node: onnx.NodeProto, shapes: Shapes) -> int:
    """The multiply-adds of one node in one run; 0 for operators that are no sums of products.

    Args:
        node:
            The node.
        shapes:
            The shapes of its tensors.

    Raises:
        KeyError:
            If a shape is missing.
    """
    kind = node.op_type
    if kind in ("Conv", "FusedConv"):
        # (M, C / group, kernel...): each output value is a sum over all but the first axis.
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if kind == "ConvTranspose":
        # (C, M / group, kernel...): each input value goes into as many outputs.
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if kind == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if kind == "Gemm":
        turned = node_attributes(node).get("transA", 0)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]
    if kind in _GATES:
        return _recurrent(node, shapes)
    if kind == "Attention" and node.domain == "com.microsoft":
        batch, length, width = shapes[node.input[0]]
        hidden = shapes[node.input[1]][1]
        # The projections, and the products of queries and keys and of scores and values.
        return batch * length * (width * hidden + 2 * length * (hidden // 3))
    return 0


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    first, second, _ = shapes[node.input[0]]
    directions, rows, width = shapes[node.input[1]]
    hidden = rows // _GATES[node.op_type]
    return first * second * directions * rows * (width + hidden)
