"""Float16 on a provider that computes in float32: each result rounded, as it would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import unused_name


if TYPE_CHECKING:
    from collections.abc import Mapping


def with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose tensors of float16 are rounded to it where an op has no such kernel.

    The CPU provider then puts Casts around the op. It removes them together with the Casts that
    the model itself has there, and nothing is rounded. An operator that does nothing, a Max of one
    tensor, behind each tensor of float16 keeps it from doing so.

    Args:
        model:
            The model. It is not changed.

    Returns:
        The model itself if it has no such tensors.
    """
    names = {name for node in model.graph.node for name in (node.name, *node.output)}
    half: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            copy.input[position] = half.get(name, name)
        nodes.append(copy)
        if not _writes_half(node, half):
            continue
        for output in node.output:
            half[output] = unused_name(f"{output}_rounded", names)
            names.add(half[output])
            barrier = unused_name(f"{output}_rounding", names)
            names.add(barrier)
            nodes.append(helper.make_node("Max", [output], [half[output]], barrier))
    if not half:
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found


def _writes_half(node: onnx.NodeProto, half: Mapping[str, str]) -> bool:
    if node.op_type == "Cast" and not node.domain:
        return bool(node_attributes(node).get("to") == onnx.TensorProto.FLOAT16)
    return any(name in half for name in node.input)
