"""The integer levels of a group, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Literal
from typing import TypeAlias
from typing import get_args

import numpy as np


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Scheme: TypeAlias = Literal["sym", "asym"]

BITS = (2, 3, 4, 8)
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Levels:
    """The integers that a weight of some bits can be: ``0 .. 2**bits - 1``.

    Args:
        bits:
            Bits of a code.
        scheme:
            ``"sym"`` if the zero point is the middle, ``"asym"`` if each group has its own.
    """

    bits: int
    scheme: Scheme

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of a symmetric weight."""
        return 1 << (self.bits - 1)

    def min_max(self, groups: Floats, *, shrink: float = 1.0) -> tuple[Floats, Floats]:
        """The scales and zero points that cover the values of each group.

        The conventions are those of ONNX Runtime's own quantizer for ``MatMulNBits``. A symmetric
        scale has the sign that puts the value of largest magnitude on code 0, since there is one
        more level on that side; so it may be negative. An asymmetric range contains zero.

        Args:
            groups:
                The values, of shape ``[n, width]`` and dtype float32.
            shrink:
                What to multiply the range with before.

        Returns:
            Scales and zero points (whole numbers), each of shape ``[n]`` and dtype float32.
        """
        # In float64, so that the difference of two large numbers is finite; these arrays are small
        low = groups.min(axis=1).astype(np.float64) * shrink
        high = groups.max(axis=1).astype(np.float64) * shrink
        if self.scheme == "sym":
            scale = usable_scale(np.where(high > -low, high, low) / -self.middle, self.bits)
            return scale, np.full_like(scale, self.middle)
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        scale = usable_scale((high - low) / self.top, self.bits)
        return scale, self.nearest_zero_point(-low / scale)

    def nearest_zero_point(self, zero_point: NDArray[Any]) -> Floats:
        """Zero points rounded to codes, as float32."""
        nearest: Floats = np.clip(np.rint(zero_point), 0, self.top).astype(np.float32)
        return nearest

    def codes(self, groups: Floats, scale: Floats, zero_point: Floats) -> Floats:
        """The codes (whole numbers, as float32) nearest to the values of each group.

        Args:
            groups:
                The values, of shape ``[n, width]``.
            scale:
                Of shape ``[n]``.
            zero_point:
                Of shape ``[n]``.
        """
        codes: Floats = groups / scale[:, None]
        codes += zero_point[:, None]
        np.rint(codes, out=codes)
        np.clip(codes, 0.0, self.top, out=codes)
        return codes

    def nearest(self, groups: Floats, scale: Floats, zero_point: Floats) -> Floats:
        """The values of the codes that are nearest to the values of each group."""
        return values_of(self.codes(groups, scale, zero_point), scale, zero_point)


def values_of(codes: Floats, scale: Floats, zero_point: Floats) -> Floats:
    """The values of codes of shape ``[n, width]`` with scales and zero points of shape ``[n]``."""
    values: Floats = codes - zero_point[:, None]
    values *= scale[:, None]
    return values


def usable_scale(scale: NDArray[Any], bits: int) -> Floats:
    """Scales as float32, with which no value overflows and none is divided by zero.

    A scale that is too small for a normal float32, as that of a group of zeros, becomes 1: all
    codes of the group then stand for zero.
    """
    largest = _LARGEST / 2**bits
    limited = np.clip(scale, -largest, largest)
    scale = np.where(np.abs(limited) < _SMALLEST, 1.0, limited)
    return scale.astype(np.float32)
