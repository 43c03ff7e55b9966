"""Which outputs of a graph depend on which ops, and which nodes read which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from optuna_quant.backends.base import GraphNode


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph


# What these say of a tensor is the same whatever its values are.
_BLIND = frozenset({"Shape", "Size"})


def outputs_behind(graph: Graph, ops: Iterable[str]) -> tuple[str, ...]:
    """The outputs of a graph whose values can change when these ops compute something else.

    Args:
        graph:
            The graph.
        ops:
            Names of nodes.

    Returns:
        The names of the outputs, in the graph's order.
    """
    ops = set(ops)
    changed: set[str] = set()
    for position, node in enumerate(graph.nodes):
        reads = {*node.input, *graph.captures.get(position, ())}
        reached = node.op_type not in _BLIND and not changed.isdisjoint(reads)
        if reached or node.name in ops:
            changed.update(name for name in node.output if name)
    return tuple(v.name for v in graph.template.graph.output if v.name in changed)


def graph_nodes(graph: Graph) -> tuple[GraphNode, ...]:
    """The nodes of a graph, with those that each reads, also from within its subgraphs.

    Args:
        graph:
            The graph.

    Returns:
        The nodes in the graph's order.
    """
    found = []
    for position, node in enumerate(graph.nodes):
        reads = [*node.input, *sorted(graph.captures.get(position, ()))]
        makers = (graph.producer[name] for name in reads if name in graph.producer)
        inputs = tuple(graph.nodes[maker].name for maker in dict.fromkeys(makers))
        found.append(GraphNode(node.name, node.op_type, inputs))
    return tuple(found)
