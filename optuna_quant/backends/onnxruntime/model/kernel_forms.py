"""The forms of operators that the runtime's integer kernels compute wrongly, or do not load.

Seen with ONNX Runtime 1.32; all other forms of the operators in :mod:`.op_tables` compute the same
on integers as in floats, to within the rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    from collections.abc import Iterable


def lacking_form(node: onnx.NodeProto) -> str | None:
    """What a standard operator does that its integer kernel does not do; None if there is nothing.

    Args:
        node:
            The operator.
    """
    if node.op_type != "AveragePool" or node.domain not in ("", "ai.onnx"):
        return None
    attributes = node_attributes(node)
    if any(step != 1 for step in attributes.get("dilations", ())):
        return "the integer kernel has no dilations"
    if attributes.get("ceil_mode", 0) and attributes.get("count_include_pad", 0):
        return "the integer kernel counts what the last windows have outside of the padded input"
    return None


def drop_neutral_attributes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Remove attributes that say what holds anyway and that integer kernels do not know.

    Args:
        nodes:
            The nodes; changed in place.
    """
    for node in nodes:
        if node.op_type != "AveragePool" or node.domain not in ("", "ai.onnx"):
            continue
        if lacking_form(node) is None:
            kept = [attribute for attribute in node.attribute if attribute.name != "dilations"]
            del node.attribute[:]
            node.attribute.extend(kept)
