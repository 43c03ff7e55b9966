"""AWQ: inputs that are large on average get finer steps, by factors on the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import empty_grouped
from optuna_quant.backends.onnxruntime.weight_only.algorithms.output_error import better_rows
from optuna_quant.backends.onnxruntime.weight_only.algorithms.output_error import output_error
from optuna_quant.backends.onnxruntime.weight_only.algorithms.rtn import round_to_nearest
from optuna_quant.backends.onnxruntime.weight_only.algorithms.shrunk_ranges import shrunk_ranges


if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.weight_only.algorithms.grouped import GroupedWeight
    from optuna_quant.backends.onnxruntime.weight_only.algorithms.levels import Levels
    from optuna_quant.backends.onnxruntime.weight_only.algorithms.moments import InputMoments

    Floats = NDArray[np.float32]

_SEARCHED = 512
"""Outputs that the search of the factors looks at, at most."""
_ROWS = 4096
"""Rows that are clipped at a time."""


@dataclass(frozen=True, kw_only=True)
class AWQOptions:
    """Options of AWQ.

    Args:
        grid:
            How many powers ``alpha`` are tried: ``0, 1 / grid, ..., (grid - 1) / grid``. With 1
            there are no factors.
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
    gram = moments.gram()
    plain = scaled = _with_scale(weight, None, levels, group_size, gram, clip=options.clip)
    scale = _searched_scale([weight], levels, group_size, moments, gram, options.grid)
    if scale is not None:
        scaled = _with_scale(weight, scale, levels, group_size, gram, clip=options.clip)
        if output_error(weight, scaled, gram) < output_error(weight, plain, gram):
            return scaled
    return plain


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
    gram = moments.gram()
    scale = _searched_scale(weights, levels, group_size, moments, gram, options.grid)
    found: list[tuple[float, list[GroupedWeight]]] = []
    for each in (None,) if scale is None else (None, scale):
        made = [
            _with_scale(weight, each, levels, group_size, gram, clip=options.clip)
            for weight in weights
        ]
        errors = (output_error(w, q, gram) for w, q in zip(weights, made, strict=True))
        found.append((sum(errors), made))
    return min(found, key=lambda pair: pair[0])[1]


def _searched_scale(
    weights: Sequence[NDArray[Any]],
    levels: Levels,
    group_size: int,
    moments: InputMoments,
    gram: Floats,
    grid: int,
) -> Floats | None:
    """What to multiply the inputs with; None for nothing."""
    parts = [_some_rows(weight, _SEARCHED // len(weights)) for weight in weights]
    best: Floats | None = None
    least = np.inf
    for step in range(grid):
        scale = _scale_of(moments.mean_magnitude(), step / grid) if step else None
        error = 0.0
        for part in parts:
            made = _with_scale(part, scale, levels, group_size, gram, clip=False)
            error += output_error(part, made, gram)
        if error < least:
            best, least = scale, error
    return best


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
    weight: NDArray[Any],
    input_scale: Floats | None,
    levels: Levels,
    group_size: int,
    gram: Floats,
    *,
    clip: bool,
) -> GroupedWeight:
    """The weight quantized for inputs that are multiplied with factors."""
    if input_scale is not None:
        weight = np.asarray(weight, np.float32) / input_scale
        gram = gram * input_scale * input_scale[:, None] if clip else gram
    rounded = round_to_nearest(weight, levels, group_size)
    if clip:
        clipped = _clipped(weight, levels, group_size, gram)
        rounded = better_rows(weight, rounded, clipped, gram)
    return rounded if input_scale is None else replace(rounded, input_scale=input_scale)


def _clipped(weight: NDArray[Any], levels: Levels, group_size: int, gram: Floats) -> GroupedWeight:
    """Each group with the range that has least error in the outputs, other groups aside."""
    result = empty_grouped(weight.shape, levels, group_size)
    inputs = weight.shape[1]
    for group, start in enumerate(range(0, inputs, group_size)):
        columns = slice(start, min(start + group_size, inputs))
        own = gram[columns, columns]
        for first in range(0, len(weight), _ROWS):
            rows = slice(first, first + _ROWS)
            values = np.array(weight[rows, columns], np.float32, order="C")
            scale, zero_point = shrunk_ranges(values, levels, partial(_group_errors, own))
            result.codes[rows, columns] = levels.codes(values, scale, zero_point)
            result.scales[rows, group] = scale
            if result.zero_points is not None:
                result.zero_points[rows, group] = zero_point
    return result


def _group_errors(gram: Floats, change: Floats) -> Floats:
    """What changes of a group's weights cost, of shape ``[rows]``."""
    found: Floats = np.einsum("oi,oi->o", change @ gram, change)
    return found
