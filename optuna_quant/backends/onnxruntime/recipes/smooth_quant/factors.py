"""The factors of SmoothQuant.

G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth, S. Han, "SmoothQuant: Accurate and Efficient
Post-Training Quantization for Large Language Models", ICML 2023, equation 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


_LEAST_WEIGHT = 1e-5


def smooth_factors(
    inputs: NDArray[np.float64],
    weights: NDArray[np.float64],
    alpha: float,
    *,
    weight_clip: bool = True,
) -> NDArray[np.float64]:
    """What activations are divided by: ``max|X_j|**alpha / max|W_j|**(1 - alpha)``.

    A channel that is zero in the activations or the weights has the median of the others' factors:
    what comes before it can be divided by its factor, too, and is not to stick out there.

    Args:
        inputs:
            The largest magnitude of each channel of the activations, of shape ``(channels,)``.
        weights:
            The same of the weights that they are multiplied with.
        alpha:
            How much goes from the activations to the weights, from 0 to 1.
        weight_clip:
            Whether weights below 1e-5 count as so large.

    Returns:
        The factors, of shape ``(channels,)``.
    """
    bounded = np.maximum(weights, _LEAST_WEIGHT) if weight_clip else weights
    used = (inputs > 0) & (bounded > 0)
    x, w = np.where(used, inputs, 1.0), np.where(used, bounded, 1.0)
    factors = x**alpha / w ** (1 - alpha)
    return np.where(used, factors, np.median(factors[used]) if used.any() else 1.0)
