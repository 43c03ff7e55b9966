"""The error that a quantized weight makes in its layer's outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import row_chunks


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.weight_only.algorithms.grouped import GroupedWeight

_ROWS = 512
"""Rows that are multiplied with a Gram matrix at a time, at least."""


def output_errors(
    weight: NDArray[Any], quantized: GroupedWeight, gram: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The squared error of each output, summed over the inputs that a Gram matrix was made of.

    For the change ``d`` of an output's weights, the factors of the inputs included, it is
    ``d @ gram @ d``.

    Args:
        weight:
            The weight, of shape ``[outputs, inputs]``.
        quantized:
            What it became.
        gram:
            The sum of ``x.T @ x`` over the inputs, of shape ``[inputs, inputs]``.

    Returns:
        The errors, of shape ``[outputs]``.
    """
    errors = np.empty(len(weight), np.float64)
    for rows, values in row_chunks(weight, least=_ROWS):
        change = quantized.rows(rows).effective()
        change -= values
        errors[rows] = np.einsum("oi,oi->o", change @ gram, change)
    # Rounding may make a sum that is almost zero negative.
    return np.maximum(errors, 0.0, out=errors)


def output_error(
    weight: NDArray[Any], quantized: GroupedWeight, gram: NDArray[np.float32]
) -> float:
    """The squared error of all outputs, ``trace(D @ gram @ D.T)``: see :func:`output_errors`."""
    return float(output_errors(weight, quantized, gram).sum())


def better_rows(
    weight: NDArray[Any],
    first: GroupedWeight,
    second: GroupedWeight,
    gram: NDArray[np.float32],
) -> GroupedWeight:
    """Of two quantized weights, for each output the one with less error; the first wins ties.

    Args:
        weight:
            The weight, of shape ``[outputs, inputs]``.
        first:
            One of them.
        second:
            Another one of the same bits, scheme, groups and factors of the inputs.
        gram:
            The sum of ``x.T @ x`` over the inputs, of shape ``[inputs, inputs]``.
    """
    better = output_errors(weight, second, gram) < output_errors(weight, first, gram)
    chosen = better[:, None]
    zero_points = None
    if first.zero_points is not None and second.zero_points is not None:
        zero_points = np.where(chosen, second.zero_points, first.zero_points)
    return replace(
        first,
        codes=np.where(chosen, second.codes, first.codes),
        scales=np.where(chosen, second.scales, first.scales),
        zero_points=zero_points,
    )
