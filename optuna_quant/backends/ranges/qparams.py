"""The parameters of a quantizer: scale and zero point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Params:
    """How a tensor is quantized: ``real = (integer - zero_point) * scale``."""

    scale: float
    zero_point: int
    dtype: str


def middle_of(dtype: str) -> int:
    """The zero point of a symmetric quantizer of an integer type."""
    limits = np.iinfo(dtype)
    return (int(limits.min) + int(limits.max) + 1) // 2
