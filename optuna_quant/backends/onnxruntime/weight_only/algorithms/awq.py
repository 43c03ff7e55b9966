"""AWQ: inputs that are large on average get finer steps, by factors on the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import cache
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import empty_grouped
from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import group_ranges
from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import quantize_by_group
from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import row_chunks
from optuna_quant.backends.onnxruntime.weight_only.algorithms.output_error import better_rows
from optuna_quant.backends.onnxruntime.weight_only.algorithms.output_error import output_errors
from optuna_quant.backends.onnxruntime.weight_only.algorithms.rtn import round_to_nearest
from optuna_quant.backends.onnxruntime.weight_only.algorithms.shrunk_ranges import shrunk_ranges


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.weight_only.algorithms.grouped import GroupedWeight
    from optuna_quant.backends.onnxruntime.weight_only.algorithms.levels import Levels
    from optuna_quant.backends.onnxruntime.weight_only.algorithms.moments import InputMoments

    Floats = NDArray[np.float32]

_SEARCHED = 512
"""Outputs that the search of the factors looks at, at most."""
_ROWS = 96
"""Rows that are quantized at a time, at least."""


@dataclass(frozen=True, kw_only=True)
class AWQOptions:
    """Options of AWQ.

    Args:
        grid:
            How many powers ``alpha`` there are: ``0, 1 / grid, ..., (grid - 1) / grid``. Every
            fourth is tried, and then the neighbours of the best. With 1 there are no factors.
        clip:
            Clip the range of a group where that costs less: 11 ranges are tried.
    """

    grid: int = 20
    clip: bool = True

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"grid must be at least 1, but it is {self.grid}")


def awq(
    weight: NDArray[Any],
    levels: Levels,
    group_size: int,
    moments: InputMoments,
    options: AWQOptions,
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
        options:
            The options.
    """
    return awq_together([weight], levels, group_size, moments, options)[0]


def awq_together(
    weights: Sequence[NDArray[Any]],
    levels: Levels,
    group_size: int,
    moments: InputMoments,
    options: AWQOptions,
) -> list[GroupedWeight]:
    """Quantize weights that have the same input, with the same factors: see :func:`awq`.

    The inputs then need to be multiplied only once, or not at all where the factors can be folded
    into what makes them.

    Args:
        weights:
            Floats of shape ``[outputs, inputs]``; their outputs may differ in number.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
        moments:
            Of the input.
        options:
            The options.
    """
    scale = _searched_scale(weights, levels, group_size, moments, options.grid)
    quantize = partial(_with_scale, levels, group_size, moments, clip=options.clip)
    plain = [quantize(weight, None) for weight in weights]
    if scale is None:
        return [quantized for quantized, _ in plain]
    scaled = [quantize(weight, scale) for weight in weights]
    best = min((plain, scaled), key=lambda found: sum(error for _, error in found))
    return [quantized for quantized, _ in best]


def _searched_scale(
    weights: Sequence[NDArray[Any]],
    levels: Levels,
    group_size: int,
    moments: InputMoments,
    grid: int,
) -> Floats | None:
    """What to multiply the inputs with; None for nothing."""
    parts = [_some_rows(weight, _SEARCHED // len(weights)) for weight in weights]

    @cache
    def error(step: int) -> float:
        made = (_with_scale(levels, group_size, moments, part, scale(step)) for part in parts)
        return sum(error for _, error in made)

    def scale(step: int) -> Floats | None:
        return _scale_of(moments.mean_magnitude(), step / grid) if step else None

    # From coarse to fine: the error has hardly more than one minimum.
    best = min(range(0, grid, 4), key=error)
    for apart in (2, 1):
        near = (best, best - apart, best + apart)
        best = min((step for step in near if 0 <= step < grid), key=error)
    return scale(best)


def _some_rows(weight: NDArray[Any], count: int) -> Floats:
    """At most so many rows, evenly spaced."""
    step = -(-len(weight) // max(count, 1))
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
