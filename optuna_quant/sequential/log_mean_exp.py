"""The logarithm of the mean of values that are given by their logarithms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_mean_exp(values: NDArray[np.float64], *, axis: int = -1) -> NDArray[np.float64]:
    """The logarithm of the mean of ``exp(values)`` along an axis, without overflow."""
    top = values.max(axis=axis, keepdims=True)
    mean = np.exp(values - top).mean(axis=axis)
    return np.asarray(top.squeeze(axis=axis) + np.log(mean))
