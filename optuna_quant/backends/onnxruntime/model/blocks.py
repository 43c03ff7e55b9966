"""Finds the parts of a graph that repeat, by its structure alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.space.blocks import Block


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph


_LAYERS = frozenset({"Attention", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
_TABLES = frozenset({"EmbedLayerNormalization", "Gather"})
# What these give says nothing of the values that they read.
_BLIND = frozenset({"Shape", "Size"})
# Of more parts than these in one repetition no block is made: it keeps the search linear.
_MOST_PARTS = 64


def find_blocks(graph: Graph) -> tuple[Block, ...]:
    """The parts of a graph that repeat one after the other, with at least two layers each.

    Layers are convolutions, matrix products, linear and recurrent layers and attention. The graph
    is cut wherever a single tensor that depends on a layer (or an embedding) passes: between the
    halves of a transformer's layer, residual units, the layers of a plain chain. Masks, positions
    and shapes, which all blocks share, are no such tensors. Then repetitions in the sequence of
    these parts are looked for (tandem repeats, the longest first): of parts with equal layers in
    type, attributes and weight shapes, and in what is left of parts that are equal but for sizes
    and strides, as the stages of a convolutional network are. The time is linear in the number of
    nodes. Names play no part.

    Args:
        graph:
            The graph.

    Returns:
        The blocks in the order of the graph.
    """
    parts = _parts(graph)
    taken = [False] * len(parts)
    found: list[tuple[int, list[list[_Layer]]]] = []
    for exact in (True, False):
        tokens = [tuple(x.exact if exact else x.alike for x in part) for part in parts]
        for start, period, count in _repetitions(tokens):
            stop = start + period * count
            layers = sum(len(part) for part in parts[start : start + period])
            if layers < 2 or any(taken[start:stop]):
                continue
            taken[start:stop] = [True] * (stop - start)
            repeated = [
                [layer for part in parts[first : first + period] for layer in part]
                for first in range(start, stop, period)
            ]
            found.append((start, repeated))
    blocks = []
    for number, (_, repeated) in enumerate(sorted(found, key=lambda item: item[0])):
        for position, block in enumerate(repeated):
            family = f"family{number}"
            names = tuple(layer.name for layer in block)
            blocks.append(Block(f"{family}/block{position}", family, names))
    return tuple(blocks)


@dataclass(frozen=True)
class _Layer:
    name: str
    exact: tuple[object, ...]
    alike: tuple[object, ...]


def _layer(node: onnx.NodeProto, graph: Graph) -> _Layer:
    attributes = {name: repr(value) for name, value in node_attributes(node).items()}
    shapes = tuple(tuple(graph.initializers[x].dims) for x in node.input if graph.is_constant(x))
    kind = (node.domain, node.op_type)
    grouped = node_attributes(node).get("group", 1) != 1
    return _Layer(
        node.name,
        (*kind, tuple(sorted(attributes.items())), shapes),
        (*kind, attributes.get("kernel_shape"), grouped, sum(len(s) > 1 for s in shapes)),
    )


def _parts(graph: Graph) -> list[list[_Layer]]:
    """The layers between two cuts, for each part that has any."""
    ends = _last_reads(graph)
    depends: set[str] = set()
    change = [0] * (len(graph.nodes) + 1)
    for i, node in enumerate(graph.nodes):
        reads = {*node.input, *graph.captures.get(i, ())}
        is_source = node.op_type in _LAYERS or (
            node.op_type in _TABLES and any(graph.is_constant(name) for name in node.input)
        )
        if node.op_type in _BLIND or not (is_source or not depends.isdisjoint(reads)):
            continue
        for name in node.output:
            if name:
                depends.add(name)
            if ends.get(name, i) > i:
                change[i] += 1
                change[ends[name]] -= 1
    parts: list[list[_Layer]] = [[]]
    for node, alive in zip(graph.nodes, accumulate(change), strict=False):
        if node.op_type in _LAYERS and node.domain in ("", "ai.onnx", "com.microsoft"):
            parts[-1].append(_layer(node, graph))
        if alive <= 1:
            parts.append([])
    return [part for part in parts if part]


def _last_reads(graph: Graph) -> dict[str, int]:
    """The position of the last node that reads each tensor."""
    ends: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        ends.update(dict.fromkeys((*node.input, *graph.captures.get(i, ())), i))
    return ends


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
