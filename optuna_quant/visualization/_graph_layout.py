"""Lay out the graph of a model in layers, from top to bottom, in as many columns as it takes."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.backends.base import GraphNode
    from optuna_quant.space.blocks import Block


MOST_LAYERS = 26
"""What is higher than so many layers has another column."""

# Of a block, so many ops are drawn in one line.
_MOST_IN_LINE = 20
# How far its ops, and its lines, are from each other.
_PITCH = 0.8
# What a character of a name takes beside its op, and the gaps around the name.
_CHARACTER = 0.24
_NAME_GAPS = 1.2
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
        line, cell = divmod(position, _MOST_IN_LINE)
        return self.x + _PITCH * cell, self.y + _PITCH * line

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
        The parts, in the order of the model, without ops that the graph does not have.
    """
    block_of = {op: block.name for block in blocks for op in block.ops}
    names = {block.name for block in blocks}
    shown = set(ops)
    needed = _leads_to(nodes, shown)
    sources: dict[str, tuple[str, ...]] = {}
    kept: dict[str, tuple[str, tuple[str, ...]]] = {}
    owner: dict[str, str] = {}
    order = {node.name: place for place, node in enumerate(nodes)}
    for node in nodes:
        before = tuple(dict.fromkeys(s for name in node.inputs for s in sources.get(name, ())))
        if node.name in shown or (len(before) > 1 and node.name in needed):
            sources[node.name] = (node.name,)
            kept[node.name] = (node.op_type, before)
            latest = max(before, key=order.__getitem__, default=node.name)
            inner = node.name if node.name in shown else owner[latest]
            # A join within a block, or at its end, is part of it.
            is_block = inner in names
            owner[node.name] = block_of.get(node.name, inner if is_block else node.name)
        else:
            sources[node.name] = before
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


def placed(parts: Sequence[Part], names: Mapping[str, str]) -> list[Placed]:
    """The place of each part: below all that it reads.

    Args:
        parts:
            The parts, each after those that it reads.
        names:
            The labels that stand beside parts, by their names; there has to be room for them.
    """
    layers: list[int] = []
    for part in parts:
        layers.append(1 + max((layers[source] for source in part.sources), default=-1))
    in_layer: list[list[int]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for number, layer in enumerate(layers):
        in_layer[layer].append(number)
    widths = [_width(part) + text_width(names.get(part.name, "")) for part in parts]
    x = [0.0] * len(parts)
    for numbers in in_layer:
        numbers.sort(key=lambda number: (_middle(parts[number].sources, x), number))
        start = 0.0
        for number in numbers:
            x[number] = start
            start += widths[number] + _GAP
    columns, y = _columns([_height(parts[n] for n in numbers) for numbers in in_layer])
    shift, left = [], 0.0
    for column in range(max(columns, default=-1) + 1):
        shift.append(left)
        inside = [n for n, layer in enumerate(layers) if columns[layer] == column]
        left += max(x[n] + widths[n] for n in inside) + 2 * _GAP
    return [
        Placed(part, x[number] + shift[columns[layer]], y[layer], columns[layer])
        for number, (part, layer) in enumerate(zip(parts, layers, strict=True))
    ]


def text_width(text: str) -> float:
    """What a text beside a part takes, in widths of an op.

    Args:
        text:
            The text.
    """
    return _NAME_GAPS + _CHARACTER * len(text) if text else 0.0


def _columns(heights: Sequence[float]) -> tuple[list[int], list[float]]:
    """The column of each layer, all about equally high, and where it begins in it."""
    total = sum(heights)
    target = total / max(1, math.ceil(total / MOST_LAYERS))
    columns, y, top = [0], [0.0], 0.0
    for before in heights[:-1]:
        top += before
        is_full = top - columns[-1] * target >= target - 1e-9
        columns.append(columns[-1] + is_full)
        y.append(0.0 if is_full else y[-1] + before)
    return columns[: len(heights)], y[: len(heights)]


def _height(parts: Iterable[Part]) -> float:
    lines = max(-(-len(part.ops) // _MOST_IN_LINE) for part in parts)
    return 1.0 + _PITCH * max(0, lines - 1)


def _width(part: Part) -> float:
    return 1.0 + _PITCH * (min(_MOST_IN_LINE, max(1, len(part.ops))) - 1)


def _middle(sources: Sequence[int], x: Sequence[float]) -> float:
    return sum(x[source] for source in sources) / len(sources) if sources else 0.0
