"""Half-quadratic quantization (HQQ): groups whose outliers count less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.best_grid import BestGrid
from optuna_quant.backends.weight_algorithms.by_group import quantize_by_group
from optuna_quant.backends.weight_algorithms.levels import usable_scale
from optuna_quant.backends.weight_algorithms.levels import values_of


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.levels import Levels

    Floats = NDArray[np.float32]

NORM = 0.7
_BETA = 10.0
_KAPPA = 1.01
_ITERATIONS = 20
_SMALL = np.float32(1e-6)


def half_quadratic(weight: NDArray[Any], levels: Levels, group_size: int) -> GroupedWeight:
    """Quantize a weight so that the ``NORM``-norm of its error is small in each group.

    Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023: a sparse
    part ``e`` of the error is split off by shrinking, and the zero point is moved to where the
    rest has no mean, in turn. Three things differ:

    - ``MatMulNBits`` runs integer zero points fastest, so each zero point found is rounded.
    - What is lost by that is regained by the scale, which is fitted to ``weight - e`` by least
      squares. A symmetric weight has only this step.
    - Errors are shrunk in units of the scale, so the result does not depend on the weight's unit.

    The best grid seen is kept for each group; the first is that of RTN.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
    """
    return quantize_by_group(weight, levels, group_size, fit)


def half_quadratic_float(weight: NDArray[Any], levels: Levels, group_size: int) -> GroupedWeight:
    """As :func:`half_quadratic`, with zero points that are not rounded, as in the paper.

    A range then need not contain zero. On the CPU, ``MatMulNBits`` takes such zero points for 2
    and 4 bits and computes in floats.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are; asymmetric.
        group_size:
            Inputs of a group; the last one may be shorter.
    """
    return quantize_by_group(weight, levels, group_size, fit_between, zero_points=np.float32)


def fit(groups: Floats, levels: Levels) -> tuple[Floats, Floats]:
    """The scales and zero points of groups of shape ``[n, width]``."""
    return _fitted(groups, levels, levels.min_max(groups), levels.nearest_zero_point)


def fit_between(groups: Floats, levels: Levels) -> tuple[Floats, Floats]:
    """The same with zero points between the codes."""
    low = groups.min(axis=1).astype(np.float64)
    scale = usable_scale((groups.max(axis=1) - low) / levels.top, levels.bits)
    start = scale, (-low / scale).astype(np.float32)
    return _fitted(groups, levels, start, lambda zero_point: zero_point.astype(np.float32))


def _fitted(
    groups: Floats,
    levels: Levels,
    start: tuple[Floats, Floats],
    rounded: Callable[[NDArray[Any]], Floats],
) -> tuple[Floats, Floats]:
    scale, zero_point = start
    best = BestGrid(scale, zero_point)
    active = np.arange(len(groups))
    beta = _BETA
    for _ in range(_ITERATIONS):
        codes = levels.codes(groups, scale, zero_point)
        error = groups - values_of(codes, scale, zero_point)
        better = best.offer(active, scale, zero_point, norm(error))
        # A group is left alone as soon as a step does not help it.
        groups, codes, error, active = groups[better], codes[better], error[better], active[better]
        if not len(active):
            break
        scale, zero_point = _step(groups, codes, error, scale[better], levels, beta, rounded)
        beta *= _KAPPA
    return best.scale, best.zero_point


def norm(error: Floats) -> NDArray[np.float64]:
    """The sum of ``|error|**NORM`` of each group, of shape ``[n]``."""
    found: NDArray[np.float64] = (np.abs(error) ** np.float32(NORM)).sum(axis=1, dtype=np.float64)
    return found


def _step(
    groups: Floats,
    codes: Floats,
    error: Floats,
    scale: Floats,
    levels: Levels,
    beta: float,
    rounded: Callable[[NDArray[Any]], Floats],
) -> tuple[Floats, Floats]:
    """The next scales and zero points."""
    dense = groups - _shrunk(error / scale[:, None], beta) * scale[:, None]
    if levels.scheme == "sym":
        zero_point = np.full_like(scale, levels.middle)
    else:
        zero_point = rounded((codes - dense / scale[:, None]).mean(axis=1))
    levels_used = codes - zero_point[:, None]
    power = np.einsum("gi,gi->g", levels_used, levels_used)
    fitted = np.einsum("gi,gi->g", levels_used, dense) / np.maximum(power, 1.0)
    return usable_scale(np.where(power > 0, fitted, scale), levels.bits), zero_point


def _shrunk(error: Floats, beta: float) -> Floats:
    """The minimum of ``|e|**p + beta / 2 * (e - error)**2`` over ``e``, nearly (their eq. 5)."""
    size = np.abs(error)
    rest = size - (size + _SMALL) ** np.float32(NORM - 1.0) / np.float32(beta)
    shrunk: Floats = np.copysign(np.maximum(rest, np.float32(0.0)), error)
    return shrunk
