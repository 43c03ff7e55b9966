"""Losses of candidate quantization ranges over a histogram, and the search for the best range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    # Losses, shape (n,), of n ranges, given by their lower and upper ends, each of shape (n,).
    Loss = Callable[[Floats, Floats], Floats]
    # Scales of n ranges and the lowest level of each in units of its scale, each of shape (n,).
    Grid = Callable[[Floats, Floats], tuple[Floats, Floats]]


def search(
    loss: Loss,
    full: tuple[float, float],
    joint: Floats,
    single: Floats,
    refine: Floats | None = None,
) -> tuple[float, float]:
    """Search the best range within the full one; ties go to the wider range.

    Both ends shrink together first, then each alone (twice, since the best place of one depends on
    the other), then each moves in fine steps. An end at zero stays there.

    Args:
        loss:
            What to minimize.
        full:
            The full range, ``full[0] <= 0 <= full[1]``.
        joint:
            Factors in [0, 1] to try on both ends, largest first.
        single:
            Factors in [0, 1] to try on each end.
        refine:
            Factors around 1 to try on each end of the best range found.
    """
    best = full
    best_loss = float(loss(np.array([full[0]]), np.array([full[1]]))[0])

    def improve(lows: Floats | float, highs: Floats | float) -> None:
        nonlocal best, best_loss
        starts, stops = np.broadcast_arrays(np.asarray(lows), np.asarray(highs))
        losses = loss(starts, stops)
        i = int(np.argmin(losses))
        if losses[i] < best_loss:
            best, best_loss = (float(starts[i]), float(stops[i])), float(losses[i])

    improve(full[0] * joint, full[1] * joint)
    if full[0] < 0.0 < full[1]:
        for _ in range(2):
            improve(best[0], full[1] * single)
            improve(full[0] * single, best[1])
    if refine is not None:
        improve(best[0], np.minimum(best[1] * refine, full[1]))
        improve(np.maximum(best[0] * refine, full[0]), best[1])
    return best


def divergence(counts: NDArray[np.int64], levels: int) -> Loss:
    """Return the Kullback-Leibler divergence of ranges ``[start, stop)`` of whole bins.

    Compares the bins inside the range, what is outside added to the outermost ones, with the same
    bins (nothing added) merged into ``levels`` groups, each spread evenly over its filled bins.
    With prefix sums a range costs O(levels). It is infinite for fewer bins than levels.

    Args:
        counts:
            Count of each bin.
        levels:
            Number of quantization levels.
    """
    masses = counts.astype(np.float64)
    mass = _prefix_sums(masses)
    filled = _prefix_sums(masses > 0)
    entropy = _prefix_sums(_xlogx(masses))
    steps = np.arange(levels + 1) / levels

    def loss(starts: Floats, stops: Floats) -> Floats:
        result = np.full(starts.size, np.inf)
        valid = np.flatnonzero(stops - starts >= levels)
        start, stop = starts[valid].astype(np.intp), stops[valid].astype(np.intp)
        edges = start[:, None] + np.rint((stop - start)[:, None] * steps).astype(np.intp)
        merged = np.diff(mass[edges], axis=1)
        bins = np.diff(filled[edges], axis=1)
        clipped = merged.copy()
        own = entropy[stop] - entropy[start]
        for outermost, group, outside in (
            (start, 0, mass[start]),
            (stop - 1, -1, mass[-1] - mass[stop]),
        ):
            at = masses[outermost]
            own += _xlogx(at + outside) - _xlogx(at)
            clipped[:, group] += outside
            bins[:, group] += (at == 0) & (outside > 0)
            # Where clipped values land in an empty group, one value keeps the divergence finite.
            merged[:, group] += (merged[:, group] == 0) & (outside > 0)
        ratio = np.divide(merged, bins, out=np.ones_like(merged), where=clipped > 0)
        cross = (clipped * np.log(ratio)).sum(axis=1)
        result[valid] = (own - cross) / mass[-1] + np.log(merged.sum(axis=1) / mass[-1])
        return result

    return loss


def squared_error(
    first: int, counts: NDArray[np.int64], width: float, grid: Grid, steps: int
) -> Loss:
    """Return the mean squared quantization error of ranges, clipping included.

    The values are taken as spread evenly within each bin and the error is integrated exactly: in
    units of the scale, the squared distance to the nearest level ``n`` integrates to
    ``n / 12 + (u - n)**3 / 3`` from zero to ``u``, also beyond the outermost levels.

    Args:
        first:
            Index of the first bin.
        counts:
            Count of each bin.
        width:
            Width of a bin.
        grid:
            From ranges to their quantization grids.
        steps:
            Number of levels less one.
    """
    # Summation by parts: only edges where the density jumps matter.
    jumps = np.diff(counts, prepend=0, append=0)
    at = np.flatnonzero(jumps)
    edges, density = (first + at) * width, jumps[at] / (counts.sum() * width)
    units, level = np.empty_like(edges), np.empty_like(edges)

    def loss(lows: Floats, highs: Floats) -> Floats:
        scales, bottoms = grid(lows, highs)
        result = np.empty_like(scales)
        for i, (scale, bottom) in enumerate(zip(scales, bottoms, strict=True)):
            np.divide(edges, scale, out=units)
            np.rint(units, out=level)
            np.clip(level, bottom, bottom + steps, out=level)
            np.subtract(units, level, out=units)
            cubes = units * units * units
            result[i] = -(level @ density / 12.0 + cubes @ density / 3.0) * scale**3
        return result

    return loss


def _prefix_sums(values: NDArray[np.float64] | NDArray[np.bool_]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _xlogx(values: Floats) -> Floats:
    return values * np.log(np.where(values > 0, values, 1.0))
