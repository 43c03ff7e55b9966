"""Cross-layer equalization.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.1. Where a layer's weights differ much in
size from output channel to output channel, one grid for all of them, or for all channels of what
the layer gives, serves the large ones alone. A factor per channel, taken out of one layer and put
into the next, makes the channels of both equally large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.recipes.scaling.apply import divide
from optuna_quant.backends.onnxruntime.recipes.scaling.edits import GraphEdits
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroups


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroup


_MOST_PASSES = 100
_CONVERGED = 1e-3
"""The largest change of a factor, relative to it, at which the passes over the layers end."""


def equalized(graph: Graph) -> Graph:
    """A graph with the same function whose layers have channels of one size, where that can be.

    All layers that share channels take part: those of a chain, and around a residual connection
    all that are added to it or read it. The groups are gone through until nothing changes.

    Args:
        graph:
            The graph.
    """
    groups = ScaleGroups(graph).all()
    edits = GraphEdits(graph, "eq")
    for _ in range(_MOST_PASSES):
        change = 0.0
        for group in groups:
            factors = channel_factors(edits, group)
            divide(edits, group, factors)
            change = max(change, float(np.abs(np.log(factors)).max(initial=0.0)))
        if change < _CONVERGED:
            break
    return edits.graph()


def unevenness(graph: Graph) -> float:
    """By what factor the channels of some layer differ from what equalization would make of them.

    Args:
        graph:
            The graph.

    Returns:
        The largest ratio of two factors of one group of layers; 1 if there is no such group.
    """
    edits = GraphEdits(graph, "eq")
    factors = (channel_factors(edits, group) for group in ScaleGroups(graph).all())
    return max((float(each.max() / each.min()) for each in factors), default=1.0)


def channel_factors(edits: GraphEdits, group: ScaleGroup) -> NDArray[np.float64]:
    """What the tensors of a group are to be divided by: ``sqrt(r1 / r2)`` (equation 11).

    ``r1`` and ``r2`` are the ranges of a channel in the layers before and behind, each over that
    of its whole layer where there are several. A channel that one side does not use keeps 1.

    Args:
        edits:
            Gives the weights as they are.
        group:
            The group.

    Returns:
        A factor for each channel, of shape ``(channels,)``.
    """
    before = np.zeros(group.channels)
    for source in group.sources:
        weight = edits.constant(source.index, source.layout.position)
        maxima = source.layout.output_maxima(weight)
        before = np.maximum(before, maxima / (maxima.max(initial=0.0) or 1.0))
    behind = np.zeros(group.channels)
    for reader in group.readers:
        weight = edits.constant(reader.index, reader.layout.position)
        maxima = reader.layout.input_maxima(weight).reshape(-1, reader.repeat).max(axis=1)
        behind = np.maximum(behind, maxima / (maxima.max(initial=0.0) or 1.0))
    used = (before > 0) & (behind > 0)
    return np.where(used, np.sqrt(before / np.where(used, behind, 1.0)), 1.0)
