"""Weights of 7 bits, whose products with 8-bit activations cannot saturate 16-bit sums."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.backends.ranges.ranges import quantized_limits


if TYPE_CHECKING:
    from numpy.typing import NDArray


SYMMETRIC_TOP = 63
"""The largest integer of a symmetric weight; the smallest is its negative."""
SYMMETRIC_PART = np.float32(SYMMETRIC_TOP / 127)
"""The part of the 8-bit steps that a symmetric weight has."""


def seven_bit_grid(
    scale: NDArray[np.float32], zero_point: NDArray[Any], dtype: str, scheme: str
) -> tuple[NDArray[np.float32], NDArray[Any], tuple[int, int]]:
    """The grid of half as many steps over the same range.

    Args:
        scale:
            The scales of 8 bits.
        zero_point:
            The zero points, of the same shape.
        dtype:
            ``"int8"`` or ``"uint8"``.
        scheme:
            ``"sym"`` or ``"asym"``.

    Returns:
        The scales, the zero points, and the smallest and the largest integer.
    """
    low, high = quantized_limits(dtype, scheme)
    if scheme == "sym":
        middle = (low + high) // 2
        part, limits = SYMMETRIC_PART, (middle - SYMMETRIC_TOP, middle + SYMMETRIC_TOP)
    else:
        below = (zero_point.astype(np.float64) - low) * (127 / 255)
        part, limits = np.float32(127 / 255), (low // 2, low // 2 + 127)
        zero_point = (np.rint(below) + limits[0]).astype(zero_point.dtype)
    return (scale / part).astype(np.float32), zero_point, limits


def on_grid(
    weight: NDArray[np.float32],
    scale: NDArray[np.float32],
    zero_point: NDArray[Any],
    axis: int | None,
    limits: tuple[int, int],
) -> NDArray[Any]:
    """The integers of a weight: rounded half to even, then limited.

    Args:
        weight:
            The weight in floats.
        scale:
            One scale, or one for each index of the axis.
        zero_point:
            Of the same shape; its dtype is that of the integers.
        axis:
            The channel axis; None if there is one scale.
        limits:
            The smallest and the largest integer.
    """
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    values = np.rint(weight / scale.reshape(shape)) + zero_point.reshape(shape)
    return np.asarray(np.clip(values, *limits).astype(zero_point.dtype))
