"""AWQ: inputs that are large on average get finer steps, by factors on the inputs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.by_group import empty_grouped
from optuna_quant.backends.weight_algorithms.by_group import group_ranges
from optuna_quant.backends.weight_algorithms.by_group import quantize_by_group
from optuna_quant.backends.weight_algorithms.by_group import row_chunks
from optuna_quant.backends.weight_algorithms.output_error import better_rows
from optuna_quant.backends.weight_algorithms.output_error import output_errors
from optuna_quant.backends.weight_algorithms.rtn import round_to_nearest
from optuna_quant.backends.weight_algorithms.shrunk_ranges import shrunk_ranges


if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.levels import Levels
    from optuna_quant.backends.weight_algorithms.moments import InputMoments

    Floats = NDArray[np.float32]

_SEARCHED = 512
"""Outputs that the search of the factors looks at, at most."""
_ROWS = 96
"""Rows that are quantized at a time, at least."""
_POWERS = 20
"""How many powers there are, from 0 on. Every fourth is tried, and the neighbours of the best."""


def awq(
    weight: NDArray[Any], levels: Levels, group_size: int, moments: InputMoments
) -> GroupedWeight:
    """Quantize a weight with factors on its inputs, so that the outputs' error is small.

    Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration",
    2023, section 3.2: the weight of an input is multiplied with the input's mean magnitude to the
    power of ``alpha``, rounded, and the input divided by the same. The error of each ``alpha`` is
    that of the layer's outputs, from the moments; no inputs are stored. Then ranges are clipped,
    as in its implementation. The result has no factors where RTN, clipped, has less error.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
        moments:
            Of the layer's inputs.
    """
    scale = _searched_scale(weight, levels, group_size, moments)
    plain = _with_scale(levels, group_size, moments, weight, None, clip=True)
    if scale is None:
        return plain[0]
    scaled = _with_scale(levels, group_size, moments, weight, scale, clip=True)
    return min((plain, scaled), key=lambda found: found[1])[0]


def _searched_scale(
    weight: NDArray[Any], levels: Levels, group_size: int, moments: InputMoments
) -> Floats | None:
    """What to multiply the inputs with; None for nothing."""
    part = _some_rows(weight, _SEARCHED)

    @cache
    def error(step: int) -> float:
        return _with_scale(levels, group_size, moments, part, scale(step))[1]

    def scale(step: int) -> Floats | None:
        return _scale_of(moments.mean_magnitude(), step / _POWERS) if step else None

    # From coarse to fine: the error has hardly more than one minimum.
    best = min(range(0, _POWERS, 4), key=error)
    for apart in (2, 1):
        near = (best, best - apart, best + apart)
        best = min((step for step in near if 0 <= step < _POWERS), key=error)
    return scale(best)


def _some_rows(weight: NDArray[Any], count: int) -> Floats:
    """At most so many rows, evenly spaced."""
    step = -(-len(weight) // count)
    return np.asarray(weight[::step], np.float32)


def _scale_of(magnitudes: Floats, alpha: float) -> Floats:
    """The factors of the inputs; the geometric mean of the largest and the smallest is 1."""
    powers = np.maximum(magnitudes.astype(np.float64) ** alpha, 1e-4)
    powers /= np.sqrt(powers.max() * powers.min())
    return (1.0 / powers).astype(np.float32)


def _with_scale(
    levels: Levels,
    group_size: int,
    moments: InputMoments,
    weight: NDArray[Any],
    input_scale: Floats | None,
    *,
    clip: bool = False,
) -> tuple[GroupedWeight, float]:
    """The weight quantized for inputs that are multiplied with factors, and its output error."""
    result = empty_grouped(weight.shape, levels, group_size, input_scale)
    fit = partial(_clipped_ranges, _blocks(moments, group_size, input_scale)) if clip else None
    total = 0.0
    for rows, values in row_chunks(weight, least=_ROWS):
        scaled = values if input_scale is None else values / input_scale
        found = replace(round_to_nearest(scaled, levels, group_size), input_scale=input_scale)
        errors = output_errors(values, found, moments)
        if fit is not None:
            clipped = quantize_by_group(scaled, levels, group_size, fit)
            clipped = replace(clipped, input_scale=input_scale)
            clipped_errors = output_errors(values, clipped, moments)
            found = better_rows(found, errors, clipped, clipped_errors)
            errors = np.minimum(errors, clipped_errors)
        result.put(rows, found)
        total += float(errors.sum())
    return result, total


def _blocks(
    moments: InputMoments, group_size: int, input_scale: Floats | None
) -> dict[int, Floats]:
    """The moments inside the groups of each width, of shape ``[groups, width, width]``."""
    found: dict[int, Floats] = {}
    for _, columns in group_ranges(moments.inputs, group_size):
        starts = range(columns.start, columns.stop, group_size)
        parts = [slice(start, min(start + group_size, columns.stop)) for start in starts]
        blocks = np.stack([moments.block(part) for part in parts])
        if input_scale is not None:
            own = input_scale[columns].reshape(len(parts), -1)
            blocks *= own[:, :, None] * own[:, None]
        found[blocks.shape[1]] = blocks
    return found


def _clipped_ranges(
    blocks: Mapping[int, Floats], groups: Floats, levels: Levels
) -> tuple[Floats, Floats]:
    """Of each group the range that has least error in the outputs, other groups aside."""
    own = blocks[groups.shape[1]]

    def errors(change: Floats) -> Floats:
        of_group = change.reshape(-1, *own.shape[:2]).swapaxes(0, 1)
        found: Floats = np.einsum("goi,goi->og", of_group @ own, of_group)
        return found.reshape(-1)

    return shrunk_ranges(groups, levels, errors)
