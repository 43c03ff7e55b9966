"""The parameters of a quantizer: scale and zero point."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Params:
    """How a tensor is quantized: ``real = (integer - zero_point) * scale``."""

    scale: float
    zero_point: int
    dtype: str
