"""Whether what a model gives for a sample depends on the others in its batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import subgraphs


if TYPE_CHECKING:
    import onnx


# DynamicQuantizeLinear, and the contrib ops in which it is fused: one range for the whole tensor.
_RANGES_AT_RUN_TIME = "DynamicQuantize"


def quantizes_at_run_time(model: onnx.ModelProto) -> bool:
    """Whether a model finds ranges of activations while it runs.

    It finds them over the whole batch: a sample with large values makes the steps of all others
    coarser.

    Args:
        model:
            The model.
    """
    return any(node.op_type.startswith(_RANGES_AT_RUN_TIME) for node in _nodes(model.graph))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)
