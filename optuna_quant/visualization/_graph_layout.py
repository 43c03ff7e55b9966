"""Lay out the graph of a model in layers, from top to bottom, in as many columns as it takes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.backends.base import GraphNode
    from optuna_quant.space.blocks import Block


MOST_LAYERS = 26
"""With more layers than this there is another column."""

# Of a block, so many ops are drawn in one line.
_MOST_IN_LINE = 40
# What a name takes beside its op, in cells.
_NAME_WIDTH = 7.5
_GAP = 1.0


@dataclass(frozen=True)
class Part:
    """What has one place in the picture: an op, a block, or a node where paths join.

    Args:
        name:
            The name of the op, the block or the node.
        op_type:
            Its type; empty for a block.
        ops:
            The ops that it shows; empty for a node that cannot be quantized.
        sources:
            The positions of the parts before it.
    """

    name: str
    op_type: str
    ops: tuple[str, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """A part and its place.

    Args:
        part:
            The part.
        x:
            Where its first op is, in widths of an op.
        y:
            Its layer within the column, from the top.
        column:
            Its column.
    """

    part: Part
    x: float
    y: float
    column: int

    def place(self, position: int) -> tuple[float, float]:
        """Where one of its ops is.

        Args:
            position:
                The position of the op.
        """
        # The lines of a block are closer to each other than layers are.
        line, cell = divmod(position, _MOST_IN_LINE)
        return self.x + cell, self.y + 0.42 * line

    @property
    def last(self) -> tuple[float, float]:
        """Where the edges begin that lead on."""
        return self.x, self.place(max(0, len(self.part.ops) - 1))[1]


def parts_of(
    nodes: Sequence[GraphNode], ops: Sequence[str], blocks: Sequence[Block] = ()
) -> list[Part]:
    """The parts of a graph: ops, or blocks of them, and the nodes where paths join.

    All other nodes are left out; who reads them reads what is before them.

    Args:
        nodes:
            The nodes of the model, producers first.
        ops:
            The names of the ops to show.
        blocks:
            The blocks to show as one part each.

    Returns:
        The parts, in the order of the model. Ops that the graph does not have come last.
    """
    block_of = {op: block.name for block in blocks for op in block.ops}
    shown = set(ops)
    needed = _leads_to(nodes, shown)
    sources: dict[str, tuple[str, ...]] = {}
    kept: dict[str, tuple[str, tuple[str, ...]]] = {}
    owner: dict[str, str] = {}
    for node in nodes:
        before = tuple(dict.fromkeys(s for name in node.inputs for s in sources.get(name, ())))
        if node.name in shown or (len(before) > 1 and node.name in needed):
            sources[node.name] = (node.name,)
            kept[node.name] = (node.op_type, before)
            inner = owner[before[-1]] if before and node.name not in shown else node.name
            # A join within a block, or at its end, is part of it.
            is_block = inner in {block.name for block in blocks}
            owner[node.name] = block_of.get(node.name, inner if is_block else node.name)
        else:
            sources[node.name] = before
    for op in ops:
        if op not in kept:
            kept[op], owner[op] = ("", ()), block_of.get(op, op)
    return _grouped(kept, owner, shown)


def _leads_to(nodes: Sequence[GraphNode], ops: set[str]) -> set[str]:
    """The names of the nodes from which a path leads to one of these ops."""
    found: set[str] = set()
    for node in reversed(nodes):
        if node.name in ops or node.name in found:
            found.update(node.inputs)
    return found


def _grouped(
    kept: Mapping[str, tuple[str, tuple[str, ...]]], owner: Mapping[str, str], shown: set[str]
) -> list[Part]:
    """The nodes that are kept, those of one owner as one part."""
    position: dict[str, int] = {}
    for name in kept:
        position.setdefault(owner[name], len(position))
    members: list[list[str]] = [[] for _ in position]
    before: list[dict[int, None]] = [{} for _ in position]
    for name, (_, sources) in kept.items():
        here = position[owner[name]]
        members[here].append(name)
        # A block that something leaves and enters again would be in a circle.
        before[here] |= {
            position[owner[each]]: None for each in sources if position[owner[each]] < here
        }
    parts = []
    for name, here in position.items():
        op_type = kept[name][0] if name in kept else ""
        ops = tuple(each for each in members[here] if each in shown)
        parts.append(Part(name, op_type, ops, tuple(before[here])))
    return parts


def placed(parts: Sequence[Part], *, with_names: bool) -> list[Placed]:
    """The place of each part: below all that it reads.

    Args:
        parts:
            The parts, each after those that it reads.
        with_names:
            Whether there has to be room for names.
    """
    layers: list[int] = []
    for part in parts:
        layers.append(1 + max((layers[source] for source in part.sources), default=-1))
    count = max(layers, default=-1) + 1
    columns = -(-count // MOST_LAYERS)
    per_column = -(-count // columns) if columns else 1
    in_layer: list[list[int]] = [[] for _ in range(count)]
    for number, layer in enumerate(layers):
        in_layer[layer].append(number)
    room = _NAME_WIDTH if with_names else 0.0
    x = [0.0] * len(parts)
    for numbers in in_layer:
        numbers.sort(key=lambda number: (_middle(parts[number].sources, x), number))
        start = 0.0
        for number in numbers:
            x[number] = start
            start += _width(parts[number]) + room + _GAP
    shift, left = [0.0] * max(1, columns), 0.0
    for column in range(columns):
        shift[column] = left
        inside = [n for n, layer in enumerate(layers) if layer // per_column == column]
        left += max(x[n] + _width(parts[n]) for n in inside) + room + 2 * _GAP
    y = _heights(parts, in_layer, per_column)
    return [
        Placed(part, x[number] + shift[layer // per_column], y[layer], layer // per_column)
        for number, (part, layer) in enumerate(zip(parts, layers, strict=True))
    ]


def _heights(
    parts: Sequence[Part], in_layer: Sequence[Sequence[int]], per_column: int
) -> list[float]:
    """Where each layer is, from the top of its column."""
    found: list[float] = []
    for layer, numbers in enumerate(in_layer):
        if layer % per_column == 0:
            top = 0.0
        found.append(top)
        lines = max(-(-len(parts[n].ops) // _MOST_IN_LINE) for n in numbers)
        top += 1.0 + 0.42 * max(0, lines - 1)
    return found


def _width(part: Part) -> float:
    return float(max(1, min(_MOST_IN_LINE, len(part.ops))))


def _middle(sources: Sequence[int], x: Sequence[float]) -> float:
    return sum(x[source] for source in sources) / len(sources) if sources else 0.0
