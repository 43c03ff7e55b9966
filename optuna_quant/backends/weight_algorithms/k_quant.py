"""k-quant: the scale and zero point of each group by a weighted search, as in llama.cpp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.best_grid import BestGrid
from optuna_quant.backends.weight_algorithms.by_group import quantize_by_group
from optuna_quant.backends.weight_algorithms.levels import usable_scale


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.levels import Levels

    Floats = NDArray[np.float32]

_MOVES = np.arange(-10, 10) / 10.0
"""By how many levels more the range is divided than there are."""


def k_quant(weight: NDArray[Any], levels: Levels, group_size: int) -> GroupedWeight:
    """Quantize a weight so that large values of a group count more.

    After ``make_qkx2_quants`` and ``make_qx_quants`` of llama.cpp (``ggml-quants.c``). The range
    is divided by a few levels more or fewer in 20 steps; for the codes of each, the scale and the
    minimum of least weighted squared error are known in closed form. ``MatMulNBits`` has integer
    zero points, so the minimum is rounded to a multiple of the scale, the scale is fitted again,
    and the error is that of the final codes. The weights are ``|w|`` and the root mean square of
    the group, added. The best grid is kept for each group; the first is that of RTN.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
    """
    return quantize_by_group(weight, levels, group_size, fit)


def fit(groups: Floats, levels: Levels) -> tuple[Floats, Floats]:
    """The scales and zero points of groups of shape ``[n, width]``."""
    scale, zero_point = levels.min_max(groups)
    # In units of the largest value, so that no square overflows or vanishes.
    unit = usable_scale(np.abs(groups).max(axis=1), levels.bits)
    groups, first = groups / unit[:, None], usable_scale(scale / unit, levels.bits)
    weights = importance(groups)
    best = BestGrid(first, zero_point)

    def offer(scale: Floats, zero_point: Floats) -> None:
        errors = weighted_error(groups, levels.nearest(groups, scale, zero_point), weights)
        best.offer(slice(None), scale, zero_point, errors)

    offer(first, zero_point)
    for move in _MOVES:
        if levels.scheme == "sym":
            moved = first * np.float32(levels.middle / (levels.middle + move))
            codes = levels.codes(groups, moved, zero_point)
            offer(_fitted_scale(groups, codes, zero_point, weights, moved, levels), zero_point)
        else:
            moved = first * np.float32(levels.top / (levels.top + move))
            codes = levels.codes(groups, moved, zero_point)
            near = _fitted_zero_point(groups, codes, zero_point, weights, levels)
            moved = _fitted_scale(groups, codes, near, weights, moved, levels)
            codes = levels.codes(groups, moved, near)
            offer(_fitted_scale(groups, codes, near, weights, moved, levels), near)
    return usable_scale(best.scale * unit.astype(np.float64), levels.bits), best.zero_point


def importance(groups: Floats) -> Floats:
    """How much the squared error of each value counts, of the shape of the values."""
    found: Floats = np.abs(groups) + np.sqrt(np.mean(groups**2, axis=1, keepdims=True))
    return found


def weighted_error(groups: Floats, values: Floats, weights: Floats) -> NDArray[np.float64]:
    """The weighted squared error of each group, of shape ``[n]``."""
    error = values - groups
    error *= error
    found: NDArray[np.float64] = np.einsum("gi,gi->g", error, weights).astype(np.float64)
    return found


def _fitted_scale(
    groups: Floats,
    codes: Floats,
    zero_point: Floats,
    weights: Floats,
    otherwise: Floats,
    levels: Levels,
) -> Floats:
    """The scale of least weighted error for codes and zero points."""
    used = codes - zero_point[:, None]
    weighted = used * weights
    power = np.einsum("gi,gi->g", weighted, used)
    product = np.einsum("gi,gi->g", weighted, groups)
    fitted = np.divide(product, power, out=otherwise.copy(), where=power > 0)
    return usable_scale(fitted, levels.bits)


def _fitted_zero_point(
    groups: Floats, codes: Floats, zero_point: Floats, weights: Floats, levels: Levels
) -> Floats:
    """The zero point, rounded, of the scale and minimum of least weighted error for codes."""
    weighted = codes * weights
    total = weights.sum(axis=1)
    mean_code = weighted.sum(axis=1) / np.where(total > 0, total, 1.0)
    mean = np.einsum("gi,gi->g", weights, groups) / np.where(total > 0, total, 1.0)
    centred = codes - mean_code[:, None]
    power = np.einsum("gi,gi,gi->g", weights, centred, centred)
    product = np.einsum("gi,gi,gi->g", weights, centred, groups)
    scale = np.divide(product, power, out=np.zeros_like(power), where=power > 0)
    found = np.divide(-mean, scale, out=np.zeros_like(scale), where=scale > 0) + mean_code
    return np.where(scale > 0, levels.nearest_zero_point(found), zero_point)
