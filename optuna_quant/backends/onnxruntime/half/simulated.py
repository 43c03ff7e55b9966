"""Float16 on a provider that computes in float32: each result rounded, as it would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import unused_name


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence


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
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    half: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            copy.input[position] = half.get(name, name)
        nodes.append(copy)
        for output in _half_outputs(node, half, opsets.get(node.domain, 1)):
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


def _half_outputs(node: onnx.NodeProto, half: Mapping[str, str], opset: int) -> list[str]:
    """The outputs of float16, by the types that the operator's schema says are the same."""
    outputs = [name for name in node.output if name]
    if node.op_type == "Cast" and not node.domain:
        return outputs if node_attributes(node).get("to") == onnx.TensorProto.FLOAT16 else []
    if not any(name in half for name in node.input):
        return []
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return outputs  # The runtime's own operators, all of floats.
    types = {
        _formal(schema.inputs, position).type_str
        for position, name in enumerate(node.input)
        if name in half
    }
    found = enumerate(node.output)
    return [name for i, name in found if name and _formal(schema.outputs, i).type_str in types]


def _formal(
    formal: Sequence[onnx.defs.OpSchema.FormalParameter], position: int
) -> onnx.defs.OpSchema.FormalParameter:
    """What the schema says of a place; the last one may be that of many."""
    return formal[min(position, len(formal) - 1)]
