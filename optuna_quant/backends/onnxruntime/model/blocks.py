"""The parts of a graph that repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends import blocks
from optuna_quant.backends.blocks import FlowNode
from optuna_quant.backends.blocks import LayerKind
from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.space.blocks import Block


_LAYERS = frozenset({"Attention", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
_TABLES = frozenset({"EmbedLayerNormalization", "Gather"})
# What these give says nothing of the values that they read.
_BLIND = frozenset({"Shape", "Size"})


def find_blocks(graph: Graph) -> tuple[Block, ...]:
    """The parts of a graph that repeat, see :func:`optuna_quant.backends.blocks.find_blocks`.

    Args:
        graph:
            The graph.
    """
    return blocks.find_blocks([_node(i, node, graph) for i, node in enumerate(graph.nodes)])


def _node(position: int, node: onnx.NodeProto, graph: Graph) -> FlowNode:
    is_known = node.op_type in _LAYERS
    is_layer = is_known and node.domain in ("", "ai.onnx", "com.microsoft")
    is_table = node.op_type in _TABLES and any(graph.is_constant(name) for name in node.input)
    return FlowNode(
        node.name,
        frozenset({*node.input, *graph.captures.get(position, ())}),
        tuple(name for name in node.output if name),
        layer=_kind(node, graph) if is_layer else None,
        is_source=is_known or is_table,
        is_blind=node.op_type in _BLIND,
    )


def _kind(node: onnx.NodeProto, graph: Graph) -> LayerKind:
    attributes = {name: repr(value) for name, value in node_attributes(node).items()}
    shapes = tuple(tuple(graph.initializers[x].dims) for x in node.input if graph.is_constant(x))
    kind = (node.domain, node.op_type)
    grouped = node_attributes(node).get("group", 1) != 1
    return LayerKind(
        (*kind, tuple(sorted(attributes.items())), shapes),
        (*kind, attributes.get("kernel_shape"), grouped, sum(len(s) > 1 for s in shapes)),
    )
