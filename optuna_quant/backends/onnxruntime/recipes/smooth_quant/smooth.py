"""Smoothing a graph: activations divided by a factor per channel, and weights multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.recipes.scaling.apply import divide
from optuna_quant.backends.onnxruntime.recipes.scaling.edits import GraphEdits
from optuna_quant.backends.onnxruntime.recipes.scaling.flow import Channels
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroup
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroups
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import Weighted
from optuna_quant.backends.onnxruntime.recipes.scaling.layouts import weight_layout
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.auto_alpha import QuantizedProduct
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.auto_alpha import least_error
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.factors import smooth_factors
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import AUTO
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.statistics import channel_statistics


if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs
    from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import SmoothQuantSettings
    from optuna_quant.backends.onnxruntime.recipes.smooth_quant.statistics import ChannelStatistics


_logger = get_logger(__name__)

_ALIKE = 1e-6

_LEAST_GAIN = 0.1
"""By what part a Mul of its own must lower an op's error where alpha is chosen by errors."""


@dataclass(frozen=True)
class SharedInput:
    """Ops that share the factors of a tensor.

    Args:
        tensor:
            The tensor.
        ops:
            The ops that read it.
        fold:
            The group whose constants take the factors in; None if a Mul does.
    """

    tensor: str
    ops: tuple[Weighted, ...]
    fold: ScaleGroup | None = None


def smoothed(graph: Graph, settings: SmoothQuantSettings, runs: RunsGraphs) -> Graph:
    """A graph with the same function whose activations are easier to quantize.

    Args:
        graph:
            The graph.
        settings:
            How it is smoothed.
        runs:
            The calibration data, and what the graph is run with.
    """
    ops = smoothed_ops(graph, settings.op_types)
    if not ops:
        return graph
    sharing = shared_inputs(graph, ops, settings)
    decided = runs.decided(lambda: _decided(graph, ops, sharing, settings, runs))
    edits = GraphEdits(graph, "sq")
    inserted = 0
    for shared, factors in zip(sharing, decided, strict=True):
        if not factors.size:
            continue
        if shared.fold is not None:
            divide(edits, shared.fold, factors)
            continue
        inserted += 1
        by_place = factors.reshape(-1, *[1] * (-shared.ops[0].layout.axis - 1))
        for op in shared.ops:
            weight = edits.constant(op.index, op.layout.position)
            scaled = op.layout.scaled_inputs(weight, factors)
            edits.replace(op.index, op.layout.position, scaled)
            edits.scale_input(op.index, 0, 1 / by_place)
    _logger.info(
        f"SmoothQuant ({settings.label}): {len(ops)} ops are smoothed, {inserted} of the factors "
        "with a Mul of their own."
    )
    return edits.graph()


def _decided(
    graph: Graph,
    ops: list[Weighted],
    sharing: list[SharedInput],
    settings: SmoothQuantSettings,
    runs: RunsGraphs,
) -> list[NDArray[np.float64]]:
    """The factors of each tensor; empty for one that is left as it is."""
    axes = {graph.nodes[op.index].input[0]: op.layout.axis for op in ops}
    statistics = runs.remembered(
        ("channels", settings.op_types), lambda: channel_statistics(graph, axes, runs, keep=True)
    )
    found = []
    for shared in sharing:
        factors = _factors(graph, shared, statistics[shared.tensor], settings)
        # One factor for all channels changes nothing.
        is_idle = factors is None or np.ptp(factors) <= _ALIKE * factors.max()
        found.append(np.empty(0) if factors is None or is_idle else factors)
    return found


def smoothed_ops(graph: Graph, op_types: Collection[str]) -> list[Weighted]:
    """The ops of some types that have a constant weight behind an activation."""
    found = []
    for index, node in enumerate(graph.nodes):
        layout = weight_layout(node, graph) if node.op_type in op_types else None
        if layout is not None:
            found.append(Weighted(index, layout))
    return found


def shared_inputs(
    graph: Graph, ops: list[Weighted], settings: SmoothQuantSettings
) -> list[SharedInput]:
    """Which ops share factors, and where these go.

    Args:
        graph:
            The graph.
        ops:
            The ops to be smoothed.
        settings:
            How they are.
    """
    groups = ScaleGroups(graph)
    readers: dict[tuple[str, int], list[Weighted]] = {}
    for op in ops:
        readers.setdefault((graph.nodes[op.index].input[0], op.layout.axis), []).append(op)
    found = []
    for (tensor, axis), sharing in readers.items():
        apart = settings.scales_per_op and len(sharing) > 1
        fold = None
        if settings.folding and not apart:
            fold = groups.around(tensor, Channels(axis))
            if fold is not None and not _is_of(fold, sharing):
                fold = None
        if apart:
            found += [SharedInput(tensor, (op,)) for op in sharing]
        else:
            found.append(SharedInput(tensor, tuple(sharing), fold))
    if settings.folding:
        # A Mul before a Conv would break a chain of integer kernels, which costs more than it
        # gains.
        found = [each for each in found if each.fold or not _is_conv(graph, each.ops)]
    return found


def _is_conv(graph: Graph, ops: Sequence[Weighted]) -> bool:
    return any(graph.nodes[op.index].op_type == "Conv" for op in ops)


def _is_of(group: ScaleGroup, ops: list[Weighted]) -> bool:
    """Whether only these ops read the tensors of a group, channel by channel."""
    return set(group.readers) == set(ops)


def _factors(
    graph: Graph, shared: SharedInput, found: ChannelStatistics, settings: SmoothQuantSettings
) -> NDArray[np.float64] | None:
    """What the channels of a tensor are divided by; None if that is not known or is nothing."""
    inputs = found.maxima
    if inputs is None:
        return None
    arrays = [graph.array(graph.nodes[op.index].input[op.layout.position]) for op in shared.ops]
    weights = np.max(
        [op.layout.input_maxima(a) for op, a in zip(shared.ops, arrays, strict=True)], axis=0
    )
    if weights.shape != inputs.shape:
        return None
    alphas = settings.auto.alphas if settings.alpha == AUTO else (settings.alpha,)
    candidates = [
        smooth_factors(inputs, weights, float(alpha), weight_clip=settings.weight_clip)
        for alpha in alphas
    ]
    if settings.alpha != AUTO:
        return candidates[0]
    products = [
        QuantizedProduct(graph, op, array, found)
        for op, array in zip(shared.ops, arrays, strict=True)
    ]
    # The last one is to leave the tensor alone.
    candidates.append(np.ones_like(inputs))
    gain = 0.0 if shared.fold is not None else _LEAST_GAIN
    best, error = least_error(candidates, products, settings.auto.shared_criterion, gain=gain)
    chosen = "none" if best == len(alphas) else f"{alphas[best]:g}"
    names = ", ".join(graph.nodes[op.index].name for op in shared.ops)
    _logger.debug(f"SmoothQuant: alpha {chosen} for {names}, error {error:.3g}.")
    return None if best == len(alphas) else candidates[best]
