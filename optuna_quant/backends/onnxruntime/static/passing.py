"""Nodes that only pass values on, so that what they write is on the grid of what they read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_FLOATS
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_INTEGERS
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_THROUGH


def passing_nodes(graph: Graph) -> Mapping[int, tuple[str, ...]]:
    """The outputs of each node that passes values on, by the node's position."""
    return {
        i: names
        for i, node in enumerate(graph.nodes)
        if (names := _passed(node)) and _is_exact(node, graph)
    }


def _passed(node: onnx.NodeProto) -> tuple[str, ...]:
    """The outputs of a node whose values, all of them, are values of its first input or zero."""
    if node.domain not in ("", "ai.onnx") or not node.input:
        return ()
    if node.op_type not in PASS_THROUGH | PASS_INTEGERS | PASS_FLOATS:
        return ()
    if node.op_type == "Split":
        return tuple(name for name in node.output if name)
    return tuple(node.output[:1])


def _is_exact(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether the attributes and constants of such a node allow no other values."""
    if node.op_type == "Resize":
        attributes = node_attributes(node)
        crops = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
        return attributes.get("mode", b"nearest") == b"nearest" and not crops
    if node.op_type == "Pad" and node_attributes(node).get("mode", b"constant") == b"constant":
        if graph.opset < 11:
            return float(node_attributes(node).get("value", 0.0)) == 0.0
        name = node.input[2] if len(node.input) > 2 else ""
        return not name or (graph.is_constant(name) and not np.any(graph.array(name)))
    return True
