"""Weights in floats that are stored in float16, to be cast when the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.backends.onnxruntime.model.graph import Graph


_LEAST_VALUES = 256
_LARGEST = float(np.finfo(np.float16).max)


def store_half(rewrite: Rewrite, model: onnx.ModelProto, graph: Graph) -> None:
    """Store the float32 constants of a model in float16 behind a Cast, in place.

    The runtime computes the Cast once, when it loads the model, and then runs as before. Not
    stored so are constants of fewer than 256 values, for which the Cast takes more room than it
    saves, those with values beyond float16, and those behind a pair that quantizes them.

    Args:
        rewrite:
            The rewrite of the model.
        model:
            The model.
        graph:
            The graph that it was built from.
    """
    pinned = graph.captured | graph.outputs
    quantized = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    stored: dict[str, str] = {}
    casts: list[onnx.NodeProto] = []
    for node in model.graph.node:
        for name in node.input:
            if name in stored or name in pinned or name in quantized:
                continue
            if _fits(name, graph) and rewrite.is_constant(name):
                rewrite.replace_weight(name)
                half = graph.array(name).astype(np.float16)
                source = rewrite.constant(f"{name}_float16", half)
                stored[name] = rewrite.name(f"{name}_float")
                inputs, outputs = [source], [stored[name]]
                cast = rewrite.node(
                    "Cast", node, "stored", inputs, outputs, to=onnx.TensorProto.FLOAT
                )
                casts.append(cast)
    if not stored:
        return
    nodes = [*casts]
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            copy.input[position] = stored.get(name, name)
        nodes.append(copy)
    rewrite.commit(nodes)


def _fits(name: str, graph: Graph) -> bool:
    """Whether a tensor is a large constant that float16 can hold."""
    if not name or not graph.is_weight(name):
        return False
    array = graph.array(name)
    return array.size >= _LEAST_VALUES and bool(np.all(np.abs(array) <= _LARGEST))
