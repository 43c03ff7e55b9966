"""Finds the parts of a graph that repeat, by its structure alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from itertools import pairwise

from optuna_quant.space.blocks import Block


_FEWEST_LAYERS = 2
# Of more parts than these in one repetition no block is made: it keeps the search linear.
_MOST_PARTS = 64


@dataclass(frozen=True)
class LayerKind:
    """What a layer is, to be compared with others.

    Args:
        exact:
            Equal for layers that differ in their values and names alone.
        alike:
            Equal for layers that differ in sizes and strides as well.
    """

    exact: tuple[object, ...]
    alike: tuple[object, ...]


@dataclass(frozen=True)
class FlowNode:
    """A node of a graph.

    Args:
        name:
            Its name.
        reads:
            The names of the tensors that it reads.
        makes:
            The names of those that it makes.
        layer:
            What kind of layer it is; None if it is none.
        is_source:
            Whether blocks may lie behind it although it is no layer, such as an embedding.
        is_blind:
            Whether what it gives says nothing of the values that it reads, such as a shape.
    """

    name: str
    reads: frozenset[str]
    makes: tuple[str, ...]
    layer: LayerKind | None = None
    is_source: bool = False
    is_blind: bool = False


def find_blocks(nodes: Sequence[FlowNode]) -> tuple[Block, ...]:
    """The parts of a graph that repeat one after the other, with at least two layers each.

    Layers are convolutions, matrix products, linear and recurrent layers and attention. The graph
    is cut wherever a single tensor that depends on a layer (or an embedding) passes: between the
    halves of a transformer's layer, residual units, the layers of a plain chain. Masks, positions
    and shapes, which all blocks share, are no such tensors. Then repetitions in the sequence of
    these parts are looked for (tandem repeats, the longest first): of parts with equal layers in
    type, attributes and weight shapes, and in what is left of parts that are equal but for sizes
    and strides, as the stages of a convolutional network are. A part that repeats nowhere is cut
    once more, without the tensor that enters it: so blocks are found below a connection that
    skips all of them. Names play no part. Thousands of nodes take less than a second.

    Args:
        nodes:
            The nodes, producers first.

    Returns:
        The blocks in the order of the graph.
    """
    flow = _Flow.of(nodes)
    parts = flow.parts()
    families, rest = _families(parts)
    for part in rest:
        if len(part.layers) >= 2 * _FEWEST_LAYERS:
            families += _families(flow.inner_parts(part))[0]
    blocks = []
    for number, repeated in enumerate(sorted(families, key=lambda blocks: blocks[0][0].position)):
        for position, block in enumerate(repeated):
            family = f"family{number}"
            names = tuple(layer.name for layer in block)
            blocks.append(Block(f"{family}/block{position}", family, names))
    return tuple(blocks)


@dataclass(frozen=True)
class _Layer:
    name: str
    position: int
    kind: LayerKind


@dataclass(frozen=True)
class _Part:
    """The layers between two cuts, and the nodes: from ``start`` to ``stop``, not included."""

    layers: tuple[_Layer, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class _Flow:
    """Which tensors that depend on a layer pass behind each node.

    Args:
        layers:
            The layers, in the order of the graph.
        spans:
            For each such tensor the position of the node that makes it, of the last one that reads
            it, and of the last but one (-1 if there is none); by the first.
        nodes:
            The number of nodes.
    """

    layers: tuple[_Layer, ...]
    spans: tuple[tuple[int, int, int], ...]
    nodes: int

    @classmethod
    def of(cls, nodes: Sequence[FlowNode]) -> _Flow:
        reads_of = _last_reads(nodes)
        depends: set[str] = set()
        spans, layers = [], []
        for i, node in enumerate(nodes):
            if node.layer is not None:
                layers.append(_Layer(node.name, i, node.layer))
            is_source = node.layer is not None or node.is_source
            if node.is_blind or not (is_source or not depends.isdisjoint(node.reads)):
                continue
            depends.update(node.makes)
            spans += [(i, *reads_of[name]) for name in node.makes if name in reads_of]
        return cls(tuple(layers), tuple(spans), len(nodes))

    def parts(self) -> list[_Part]:
        """The parts of the graph that have layers."""
        return self._cut(0, self.nodes, [span[:2] for span in self.spans], self.layers)

    def inner_parts(self, part: _Part) -> list[_Part]:
        """The parts of a part, if what enters it is not read a last time at its end."""
        first, last = (bisect_left(self.spans, (at,)) for at in (part.start, part.stop))
        spans = [span[:2] for span in self.spans[first:last]]
        # What enters passes behind the node before.
        entering = (span for span in self.spans[:first] if span[1] >= part.start)
        spans += [(part.start, before) for _, _, before in entering if before > part.start]
        return self._cut(part.start, part.stop, spans, part.layers)

    def _cut(
        self,
        start: int,
        stop: int,
        spans: Sequence[tuple[int, int]],
        layers: Sequence[_Layer],
    ) -> list[_Part]:
        """Cut nodes behind each that at most one tensor passes."""
        change = [0] * (stop - start + 1)
        for first, last in spans:
            change[first - start] += 1
            change[min(last, stop) - start] -= 1
        cuts = [start + i + 1 for i, alive in enumerate(accumulate(change[:-1])) if alive <= 1]
        bounds = [start, *cuts, *([stop] if not cuts or cuts[-1] < stop else [])]
        places = [layer.position for layer in layers]
        parts = []
        for first, last in pairwise(bounds):
            own = layers[bisect_left(places, first) : bisect_left(places, last)]
            if own:
                parts.append(_Part(tuple(own), first, last))
        return parts


def _families(parts: Sequence[_Part]) -> tuple[list[list[list[_Layer]]], list[_Part]]:
    """The layers of the blocks of each family, and the parts that are in none."""
    taken = [False] * len(parts)
    found: list[list[list[_Layer]]] = []
    for exact in (True, False):
        before = -1
        while len(found) > before:
            before = len(found)
            tokens = [
                # What is taken repeats nothing any more.
                (i,)
                if taken[i]
                else tuple(x.kind.exact if exact else x.kind.alike for x in part.layers)
                for i, part in enumerate(parts)
            ]
            for start, period, count in _repetitions(tokens):
                stop = start + period * count
                layers = sum(len(part.layers) for part in parts[start : start + period])
                if layers < _FEWEST_LAYERS or any(taken[start:stop]):
                    continue
                taken[start:stop] = [True] * (stop - start)
                found.append(
                    [
                        [layer for part in parts[first : first + period] for layer in part.layers]
                        for first in range(start, stop, period)
                    ]
                )
    return found, [part for part, is_taken in zip(parts, taken, strict=True) if not is_taken]


def _last_reads(nodes: Sequence[FlowNode]) -> dict[str, tuple[int, int]]:
    """The position of the last node that reads each tensor, and of the last but one or -1."""
    found: dict[str, tuple[int, int]] = {}
    for i, node in enumerate(nodes):
        for name in node.reads:
            found[name] = (i, found[name][0] if name in found else -1)
    return found


def _repetitions(tokens: Sequence[tuple[object, ...]]) -> list[tuple[int, int, int]]:
    """Where the tokens repeat: start, period and count; those that cover most come first."""
    numbers: dict[tuple[object, ...], int] = {}
    ids = [numbers.setdefault(token, len(numbers)) for token in tokens]
    found = []
    for period in range(1, min(_MOST_PARTS, len(ids) // 2) + 1):
        start = 0
        for i in range(len(ids) - period + 1):
            if i + period < len(ids) and ids[i] == ids[i + period]:
                continue
            count = (i - start) // period + 1
            if count > 1:
                found.append((start, period, count))
            start = i + 1
    return sorted(found, key=lambda run: (-run[1] * run[2], run[1], run[0]))
