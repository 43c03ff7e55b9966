"""Whether a model is a transformer, by its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph


_FUSED = frozenset(
    {"Attention", "DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "MultiHeadAttention"}
)
"""Operators that are a whole attention."""


def has_attention(graph: Graph) -> bool:
    """Whether a graph has an attention: an operator, or a softmax beside products of activations.

    Args:
        graph:
            The graph.
    """
    types = {node.op_type for node in graph.nodes}
    if types & _FUSED:
        return True
    return "Softmax" in types and any(
        node.op_type == "MatMul" and not any(map(graph.is_constant, node.input))
        for node in graph.nodes
    )
