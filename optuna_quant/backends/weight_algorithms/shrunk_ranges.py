"""Ranges that are narrower than the values: large values are clipped where that is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.best_grid import BestGrid


if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.levels import Levels

    Floats = NDArray[np.float32]

_SHRINKS = tuple(1.0 - i / 20 for i in range(11))


def shrunk_ranges(
    groups: Floats, levels: Levels, errors: Callable[[Floats], NDArray[np.floating]]
) -> tuple[Floats, Floats]:
    """The best of 11 ranges of each group: its own, times 1 to 0.5.

    Args:
        groups:
            The values, of shape ``[n, width]``.
        levels:
            The codes that there are.
        errors:
            From the changes of the values to what they cost, of shape ``[n]``.

    Returns:
        Scales and zero points, each of shape ``[n]``.
    """
    best: BestGrid | None = None
    for shrink in _SHRINKS:
        scale, zero_point = levels.min_max(groups, shrink=shrink)
        best = BestGrid(scale, zero_point) if best is None else best
        change = levels.nearest(groups, scale, zero_point) - groups
        best.offer(slice(None), scale, zero_point, errors(change).astype(np.float64))
    assert best is not None
    return best.scale, best.zero_point
