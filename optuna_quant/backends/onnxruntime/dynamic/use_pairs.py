"""Dynamic quantization that takes over the integers of a static pair."""

from __future__ import annotations

from collections.abc import Mapping

import onnx


def use_pairs(model: onnx.ModelProto, integers: Mapping[str, str]) -> None:
    """Let what would quantize a tensor at run time take the integers of the pair before it.

    Args:
        model:
            The model; changed in place.
        integers:
            The quantized tensor behind each tensor that comes out of a pair.
    """
    graph = model.graph
    params = {node.output[0]: node.input for node in graph.node if node.output[0] in integers}
    known: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear" and node.input[0] in params:
            known.update(zip(node.output, params[node.input[0]], strict=True))
        else:
            kept.append(node)
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = known.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)
