"""Which ops of a tuning space are neighbours: one reads what the other writes, directly or not."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import captured_names


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph


_MOST_BEFORE = 2
_MOST_BEHIND = 8


@dataclass(frozen=True)
class Neighbours:
    """The ops around each op, nearest first.

    Args:
        before:
            The ops whose results an op reads, through nodes that are no ops of the space.
        behind:
            The ops that read its result so.
        beside:
            The ops whose results are brought together with its result, by a sum for instance,
            before the next op.
        anchor:
            The nearest op before each node that is none, by the node's name.
        makers:
            The ops that make each tensor, directly or through other nodes, nearest first.
        position:
            The position of each op in the model.
    """

    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    behind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    anchor: Mapping[str, str] = field(default_factory=dict)
    makers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    position: Mapping[str, int] = field(default_factory=dict)


def find_neighbours(graph: Graph, ops: Collection[str]) -> Neighbours:
    """Find the neighbours of ops.

    Args:
        graph:
            The graph, its nodes in topological order.
        ops:
            The names of the ops.
    """
    wanted = set(ops)
    position = {node.name: i for i, node in enumerate(graph.nodes) if node.name in wanted}
    # With each tensor: the ops that make it, and how many nodes are between.
    makers: dict[str, dict[str, int]] = {}
    before: dict[str, tuple[str, ...]] = {}
    behind: dict[str, list[str]] = {op: [] for op in position}
    beside: dict[str, list[str]] = {op: [] for op in position}
    anchor: dict[str, str] = {}
    for node in graph.nodes:
        found: dict[str, int] = {}
        for tensor in (*node.input, *captured_names(node)):
            for op, distance in makers.get(tensor, {}).items():
                found[op] = min(distance + 1, found.get(op, distance + 1))
        nearest = sorted(found, key=lambda op: (found[op], -position[op]))
        if node.name in wanted:
            before[node.name] = tuple(nearest[:_MOST_BEFORE])
            for op in nearest:
                behind[op].append(node.name)
            made = {node.name: 0}
        else:
            if nearest:
                anchor[node.name] = nearest[0]
                beside[nearest[0]] += [op for op in nearest[1:2] if op not in beside[nearest[0]]]
            made = found
        for tensor in node.output:
            makers[tensor] = made
    return Neighbours(
        before,
        {op: tuple(dict.fromkeys(names))[:_MOST_BEHIND] for op, names in behind.items()},
        {op: tuple(names[:1]) for op, names in beside.items()},
        anchor,
        {
            tensor: tuple(sorted(found, key=lambda op: (found[op], -position[op])))
            for tensor, found in makers.items()
            if found
        },
        position,
    )
