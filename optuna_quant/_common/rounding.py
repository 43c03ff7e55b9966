"""How far numbers may be off by rounding alone."""

from __future__ import annotations

from collections.abc import Iterable
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


ROUNDING = 1e-9
"""The largest error of sums and means in double precision of numbers up to one."""


def bounds_slack(bounds: Iterable[float], dtype: DTypeLike = np.float64) -> float:
    """How far a score may lie outside of its bounds by rounding alone.

    Args:
        bounds:
            The bounds, which may be infinite.
        dtype:
            The type in which the scores were computed.
    """
    largest = max([1.0, *(abs(bound) for bound in bounds if math.isfinite(bound))])
    return max(ROUNDING, 4 * _precision(np.dtype(dtype))) * largest


def _precision(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
