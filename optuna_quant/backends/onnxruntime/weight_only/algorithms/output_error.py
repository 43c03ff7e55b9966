"""The error that a quantized weight makes in its layer's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.weight_only.algorithms.by_group import row_chunks


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.weight_only.algorithms.grouped import GroupedWeight


def output_errors(
    weight: NDArray[Any], quantized: NDArray[np.float32], gram: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The squared error of each output, summed over the inputs that a Gram matrix was made of.

    For the change ``d`` of an output's weights it is ``d @ gram @ d``.

    Args:
        weight:
            The weight, of shape ``[outputs, inputs]``.
        quantized:
            What it became, of the same shape.
        gram:
            The sum of ``x.T @ x`` over the inputs, of shape ``[inputs, inputs]``.

    Returns:
        The errors, of shape ``[outputs]``.
    """
    errors = np.empty(len(weight), np.float64)
    for rows, values in row_chunks(weight):
        change = quantized[rows] - values
        errors[rows] = np.einsum("oi,oi->o", change @ gram, change, dtype=np.float64)
    # Rounding may make a sum that is almost zero negative.
    return np.maximum(errors, 0.0, out=errors)


def output_error(
    weight: NDArray[Any], quantized: GroupedWeight, gram: NDArray[np.float32]
) -> float:
    """The squared error of all outputs, ``trace(D @ gram @ D.T)``, the inputs' factors included.

    Args:
        weight:
            The weight, of shape ``[outputs, inputs]``.
        quantized:
            What it became.
        gram:
            The sum of ``x.T @ x`` over the inputs, of shape ``[inputs, inputs]``.
    """
    return float(output_errors(weight, quantized.effective(), gram).sum())
