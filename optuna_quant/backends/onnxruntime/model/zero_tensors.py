"""Tensors that are zero whatever the inputs are, such as the first state of an unrolled LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph


_MOVING = frozenset(
    {
        *(
            "Cast",
            "Expand",
            "Flatten",
            "Identity",
            "Neg",
            "Relu",
            "Reshape",
            "Slice",
            "Squeeze",
            "Tanh",
        ),
        *("Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators that make zeros of zeros in their first input."""

_PRODUCTS = frozenset({"MatMul", "Mul"})
_ALL_INPUTS = frozenset({"Add", "Concat", "Sub"})


def zero_tensors(graph: Graph) -> frozenset[str]:
    """The tensors that nodes compute and that hold nothing but zeros.

    Args:
        graph:
            The graph.
    """
    found: set[str] = set()
    for node in graph.nodes:
        if node.domain in ("", "ai.onnx") and _is_zero(node, found, graph):
            found.update(name for name in node.output if name)
    return frozenset(found)


def _is_zero(node: onnx.NodeProto, known: set[str], graph: Graph) -> bool:
    if node.op_type == "ConstantOfShape":
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        return value is None or not np.any(onnx.numpy_helper.to_array(value))
    zeros = [name in known for name in node.input]
    if node.op_type in _MOVING:
        return zeros[:1] == [True]
    if node.op_type in _ALL_INPUTS:
        return bool(zeros) and all(zeros)
    # What is multiplied with zeros must be finite.
    return (
        node.op_type in _PRODUCTS
        and all(
            zero or graph.is_weight(name) for zero, name in zip(zeros, node.input, strict=True)
        )
        and any(zeros)
    )
