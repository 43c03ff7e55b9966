"""Weights in floats that are stored in 16 bits, to be cast when the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.backends.onnxruntime.lower_precision.types import FloatType
    from optuna_quant.backends.onnxruntime.model.graph import Graph


_LEAST_VALUES = 256


def store_in(rewrite: Rewrite, model: onnx.ModelProto, graph: Graph, kind: FloatType) -> None:
    """Store the float32 constants of a model in a type of 16 bits behind a Cast, in place.

    The runtime computes the Cast once, when it loads the model, and then runs as before. Not
    stored so are constants of fewer than 256 values, for which the Cast takes more room than it
    saves, those with values beyond the type's range, and those behind a pair that quantizes them.

    Args:
        rewrite:
            The rewrite of the model.
        model:
            The model.
        graph:
            The graph that it was built from.
        kind:
            The type.
    """
    pinned = graph.captured | graph.outputs
    quantized = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    stored: dict[str, str] = {}
    casts: list[onnx.NodeProto] = []
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            usual = name not in pinned and name not in quantized and rewrite.is_constant(name)
            if name not in stored and usual and _is_worth_it(name, graph, kind):
                source = kind.constant(rewrite, graph, name)
                stored[name] = rewrite.name(f"{name}_float")
                to = onnx.TensorProto.FLOAT
                cast = rewrite.node("Cast", node, "stored", [source], [stored[name]], to=to)
                casts.append(cast)
            copy.input[position] = stored.get(name, name)
        nodes.append(copy)
    if stored:
        rewrite.commit([*casts, *nodes])


def _is_worth_it(name: str, graph: Graph, kind: FloatType) -> bool:
    """Whether a tensor is a large constant that the type can hold."""
    if not graph.is_weight(name):
        return False
    array = graph.array(name)
    return array.size >= _LEAST_VALUES and kind.can_hold(array)
