"""What smoothing needs to know of activations: the range of each channel, and some values."""

from __future__ import annotations

from dataclasses import dataclass
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.calibration.tapped_graph import TappedGraph


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs


_logger = get_logger(__name__)

_ALL = 1 << 62
_KEPT_VALUES = 1 << 16
"""How many values of a tensor are kept, in whole samples; at least one sample is."""


@dataclass(eq=False)
class ChannelStatistics:
    """The values of one tensor over the calibration data.

    Args:
        axis:
            The channel axis, from the end.
        low:
            The least value of each channel, at most 0; None before any was seen.
        high:
            The greatest value of each channel, at least 0.
        kept:
            Values of the first samples, as the model takes them.
        is_finite:
            Whether all values are finite.
    """

    axis: int
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    kept: list[NDArray[np.float32]] | None = None
    is_finite: bool = True

    @property
    def maxima(self) -> NDArray[np.float64] | None:
        """The largest magnitude of each channel; None if it cannot be told."""
        if self.low is None or self.high is None or not self.is_finite:
            return None
        return np.maximum(-self.low, self.high)

    def add(self, values: NDArray[np.float32], *, keep: bool) -> None:
        """Take values of the tensor."""
        if not values.size or -self.axis > values.ndim:
            return
        others = tuple(i for i in range(values.ndim) if i != values.ndim + self.axis)
        low = np.minimum(values.min(axis=others), 0.0).astype(np.float64)
        high = np.maximum(values.max(axis=others), 0.0).astype(np.float64)
        self.is_finite &= bool(np.isfinite(low).all() and np.isfinite(high).all())
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        if keep:
            self._keep(values)

    def _keep(self, values: NDArray[np.float32]) -> None:
        kept = [] if self.kept is None else self.kept
        room = _KEPT_VALUES - sum(array.size for array in kept)
        per_sample = values.size // len(values) if values.ndim else values.size
        count = max(room // max(1, per_sample), 0 if kept else 1)
        if count:
            kept.append(np.array(values[:count] if values.ndim else values, dtype=np.float32))
        self.kept = kept


def channel_statistics(
    graph: Graph, axes: Mapping[str, int], runs: RunsGraphs, *, keep: bool
) -> dict[str, ChannelStatistics]:
    """Run a graph over the calibration data and look at channels of some tensors.

    Args:
        graph:
            The graph.
        axes:
            The channel axis of each tensor, from the end.
        runs:
            The data, and what the graph is run with.
        keep:
            Whether some values are kept as well.
    """
    started = time.perf_counter()
    found = {name: ChannelStatistics(axis) for name, axis in axes.items()}
    for name, values in _values(graph, list(axes), runs):
        found[name].add(values, keep=keep)
    _logger.info(
        f"Collected the channels of {len(found)} tensors in {time.perf_counter() - started:.1f} s."
    )
    return found


def _values(
    graph: Graph, tensors: list[str], runs: RunsGraphs
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    assert runs.calibration is not None
    with runs.sessions.lock:
        tapped = TappedGraph(graph, tensors, runs.sessions)
        left = runs.size or _ALL
        for piece in runs.calibration.pieces([left]):
            if left <= 0:
                break
            left -= piece.samples
            yield from tapped.values(piece.feed)
