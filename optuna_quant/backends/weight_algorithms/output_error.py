"""The error that a quantized weight makes in its layer's outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.by_group import row_chunks


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.moments import InputMoments

_ROWS = 256
"""Rows whose errors are computed at a time, at least."""


def output_errors(
    weight: NDArray[Any], quantized: GroupedWeight, moments: InputMoments
) -> NDArray[np.float64]:
    """The squared error of each output, summed over all inputs.

    Args:
        weight:
            The weight, of shape ``[outputs, inputs]``.
        quantized:
            What it became, the factors of the inputs included.
        moments:
            Of the inputs.

    Returns:
        The errors, of shape ``[outputs]``.
    """
    errors = np.empty(len(weight), np.float64)
    for rows, values in row_chunks(weight, least=_ROWS):
        change = quantized.rows(rows).effective()
        change -= values
        errors[rows] = moments.output_errors(change)
    return errors


def better_rows(
    first: GroupedWeight,
    first_errors: NDArray[np.float64],
    second: GroupedWeight,
    second_errors: NDArray[np.float64],
) -> GroupedWeight:
    """Of two quantized weights, for each output the one with less error; the first wins ties.

    Args:
        first:
            One of them.
        first_errors:
            Its :func:`output_errors`.
        second:
            Another one of the same bits, scheme, groups and factors of the inputs.
        second_errors:
            Its errors.
    """
    chosen = (second_errors < first_errors)[:, None]
    zero_points = None
    if first.zero_points is not None and second.zero_points is not None:
        zero_points = np.where(chosen, second.zero_points, first.zero_points)
    return replace(
        first,
        codes=np.where(chosen, second.codes, first.codes),
        scales=np.where(chosen, second.scales, first.scales),
        zero_points=zero_points,
    )
