"""A weight that is quantized in groups."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING
from typing import Literal
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


ZeroPoints: TypeAlias = Literal["none", "codes", "floats"]
"""What the groups of a weight have."""


@dataclass(frozen=True, eq=False)
class GroupedWeight:
    """A weight of shape ``[outputs, inputs]``, quantized along its inputs in groups.

    With inputs ``x`` of shape ``[..., inputs]`` the layer computes
    ``(x * input_scale) @ dequantized().T``.

    Args:
        codes:
            Unsigned codes ``0 .. 2**bits - 1``, one a byte, of shape ``[outputs, inputs]``.
        scales:
            Of shape ``[outputs, groups]``. A symmetric scale may be negative: see
            :meth:`~optuna_quant.backends.weight_algorithms.levels.Levels.min_max`.
        zero_points:
            Codes that stand for zero, of shape ``[outputs, groups]``, or floats where zero lies
            between codes; :obj:`None` if it is ``2**(bits - 1)`` everywhere, as in a symmetric
            weight.
        bits:
            Bits of a code.
        group_size:
            Inputs of a group; the last group may have fewer.
        input_scale:
            What the layer's inputs must be multiplied with, of shape ``[inputs]`` (AWQ);
            :obj:`None` for nothing.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | NDArray[np.float32] | None
    bits: int
    group_size: int
    input_scale: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self._arrays())

    @property
    def packed_nbytes(self) -> int:
        """Bytes of the initializers of a ``MatMulNBits`` of it.

        There each group is padded to :attr:`group_size` codes, and the zero points of an output
        are packed like its codes. The factors of the inputs, if any, are counted too.
        """
        zero_points: ZeroPoints = "none"
        if self.zero_points is not None:
            zero_points = "floats" if self.zero_points.dtype == np.float32 else "codes"
        outputs, inputs = self.codes.shape
        nbytes = packed_nbytes(outputs, inputs, self.bits, self.group_size, zero_points)
        return nbytes + (0 if self.input_scale is None else self.input_scale.nbytes)

    @cached_property
    def digest(self) -> bytes:
        """A hash of all of it."""
        found = hashlib.blake2b(digest_size=16)
        found.update(repr((self.codes.shape, self.bits, self.group_size)).encode())
        found.update(bytes([self.zero_points is None, self.input_scale is None]))
        for array in self._arrays():
            found.update(np.ascontiguousarray(array).data)
        return found.digest()

    def rows(self, rows: slice) -> GroupedWeight:
        """Some of its outputs: views, no copies."""
        zero_points = None if self.zero_points is None else self.zero_points[rows]
        return replace(
            self, codes=self.codes[rows], scales=self.scales[rows], zero_points=zero_points
        )

    def put(self, rows: slice, quantized: GroupedWeight) -> None:
        """Write some of its outputs."""
        self.codes[rows] = quantized.codes
        self.scales[rows] = quantized.scales
        if self.zero_points is not None and quantized.zero_points is not None:
            self.zero_points[rows] = quantized.zero_points

    def dequantized(self) -> NDArray[np.float32]:
        """The float32 weight that the codes stand for, of shape ``[outputs, inputs]``."""
        values = self.codes.astype(np.float32)
        for group, start in enumerate(range(0, values.shape[1], self.group_size)):
            columns = values[:, start : start + self.group_size]
            if self.zero_points is None:
                columns -= np.float32(1 << (self.bits - 1))
            else:
                columns -= self.zero_points[:, group, None]
            columns *= self.scales[:, group, None]
        return values

    def effective(self) -> NDArray[np.float32]:
        """The weight that the layer has for its inputs as they were: with :attr:`input_scale`."""
        values = self.dequantized()
        if self.input_scale is not None:
            values *= self.input_scale
        return values

    def _arrays(self) -> list[NDArray[np.uint8] | NDArray[np.float32]]:
        arrays = (self.codes, self.scales, self.zero_points, self.input_scale)
        return [array for array in arrays if array is not None]


def packed_nbytes(
    outputs: int, inputs: int, bits: int, group_size: int, zero_points: ZeroPoints
) -> int:
    """Bytes of a weight without factors of its inputs; see :attr:`GroupedWeight.packed_nbytes`.

    Args:
        outputs:
            The number of outputs.
        inputs:
            The number of inputs.
        bits:
            Bits of a code.
        group_size:
            Inputs of a group.
        zero_points:
            How groups have zero points: ``"none"``, ``"codes"`` or ``"floats"``.
    """
    groups = -(-inputs // group_size)
    scales = 4 * outputs * groups
    extra = {"none": 0, "codes": outputs * _packed(groups, bits), "floats": scales}
    return outputs * groups * _packed(group_size, bits) + scales + extra[zero_points]


def _packed(codes: int, bits: int) -> int:
    return (codes * bits + 7) // 8
