"""Streaming histograms of tensors whose range is not known in advance.

Bins lie on a grid anchored at zero whose bin width is a power of two: bin ``k`` covers
``[k * width, (k + 1) * width)``. When a value falls outside the grid the width doubles and
neighbouring bins merge, which is exact because every coarse bin is the union of two fine ones.
The final width depends only on the extremes, so the histogram of a data set depends neither on
the order of the data nor on how it was cut into batches, and its memory is constant.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

_LOG2_BINS = 12
BINS_PER_SIDE = 1 << _LOG2_BINS
"""Bins on each side of zero; the larger extreme fills at least half of its side."""

FINITE_MASK = "; a mask with finite values, such as -1e4, has one"
"""What helps where infinity stands for what is masked."""

# The smallest float32 subnormal is 2**-149: no value needs a finer grid than this one.
_MIN_EXPONENT = -149 - _LOG2_BINS
_SMALLEST = 2.0**-149
_LARGEST = float(np.finfo(np.float32).max)
# Chunks keep the scratch arrays in the cache and the memory constant.
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """Frozen histogram of the values of one tensor.

    Exact zeros are counted apart (``zeros``): they are many after a ReLU and every quantization
    grid represents them without error, so they must not be smeared over a bin.

    Args:
        exponent:
            Binary logarithm of the bin width.
        first:
            Index of the first bin in ``counts``; may be negative.
        counts:
            Counts of the non-zero values, shape ``(bins,)``, int64, read-only, without empty bins
            at either end.
        zeros:
            Number of values that are exactly zero.
        min:
            Smallest value, exact; ``0.0`` if nothing was seen.
        max:
            Largest value, exact; ``0.0`` if nothing was seen.
    """

    exponent: int
    first: int
    counts: NDArray[np.int64]
    zeros: int
    min: float
    max: float

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @functools.cached_property
    def count(self) -> int:
        """Number of values seen, zeros included."""
        return int(self.counts.sum()) + self.zeros

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bin edges, shape ``(bins + 1,)``."""
        return np.arange(self.first, self.first + self.counts.size + 1) * np.float64(self.width)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine = (self.exponent, self.first, self.zeros, self.min, self.max)
        theirs = (other.exponent, other.first, other.zeros, other.min, other.max)
        return mine == theirs and np.array_equal(self.counts, other.counts)


class StreamingHistogram:
    """Accumulates a :class:`Histogram` batch by batch in constant memory (64 KiB).

    Args:
        name:
            Name of the tensor, for error messages.

    Example:
        >>> stream = StreamingHistogram("conv1_output")
        >>> stream.update(np.array([0.5, -1.0, 0.0], dtype=np.float32))
        >>> stream.snapshot().count
        3
    """

    def __init__(self, name: str = "tensor") -> None:
        self._name = name
        self._exponent = _MIN_EXPONENT
        self._counts = np.zeros(2 * BINS_PER_SIDE, dtype=np.int64)
        self._zeros = 0
        self._min = math.inf
        self._max = -math.inf

    def update(self, values: NDArray[Any]) -> None:
        """Add the values of one batch.

        Args:
            values:
                Floating-point array of any shape; may be empty.

        Raises:
            TypeError:
                If ``values`` is not a floating-point array.
            ValueError:
                If ``values`` holds NaN, an infinity or (in float64) a magnitude that float32
                cannot hold. The histogram is left as it was.
        """
        if not np.issubdtype(values.dtype, np.floating):
            msg = f"Tensor {self._name!r} has dtype {values.dtype}; only floats have a histogram."
            raise TypeError(msg)
        if values.size == 0:
            return
        flat = np.ravel(values)
        low, high = float(flat.min()), float(flat.max())
        if not (low >= -_LARGEST and high <= _LARGEST):  # also false for NaN
            raise ValueError(self._describe_bad(flat))
        self._min = min(self._min, low + 0.0)  # adding 0.0 turns -0.0 into 0.0
        self._max = max(self._max, high + 0.0)
        self._widen(max(_exponent_for(high), _exponent_for(math.nextafter(-low, 0.0))))
        for start in range(0, flat.size, _CHUNK):
            self._count(flat[start : start + _CHUNK])

    def snapshot(self) -> Histogram:
        """Return the histogram of all values seen so far."""
        filled = np.flatnonzero(self._counts)
        start, stop = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
        seen = self._min <= self._max
        return Histogram(
            exponent=self._exponent,
            first=start - BINS_PER_SIDE if filled.size else 0,
            counts=_read_only(self._counts[start:stop].copy()),
            zeros=self._zeros,
            min=self._min if seen else 0.0,
            max=self._max if seen else 0.0,
        )

    def _widen(self, exponent: int) -> None:
        if exponent <= self._exponent:
            return
        first, merged = _coarsen(-BINS_PER_SIDE, self._counts, exponent - self._exponent)
        self._counts[:] = 0
        self._counts[first + BINS_PER_SIDE : first + BINS_PER_SIDE + merged.size] = merged
        self._exponent = exponent

    def _count(self, chunk: NDArray[np.floating[Any]]) -> None:
        # Scaling by a power of two is exact unless it underflows; where float32 could, float64
        # (which has room for every float32) is used.
        narrow = chunk.dtype != np.float64 and -126 <= self._exponent <= 0
        scratch: NDArray[Any] = chunk.astype(np.float32 if narrow else np.float64)
        if chunk.dtype == np.float64:
            scratch[np.abs(scratch) < _SMALLEST] = 0.0  # zero for any float32 scale
        zeros = int(np.count_nonzero(scratch == 0))
        scratch *= scratch.dtype.type(math.ldexp(1.0, -self._exponent))
        np.floor(scratch, out=scratch)
        scratch += BINS_PER_SIDE
        self._counts += np.bincount(scratch.astype(np.intp), minlength=2 * BINS_PER_SIDE)
        self._counts[BINS_PER_SIDE] -= zeros
        self._zeros += zeros

    def _describe_bad(self, flat: NDArray[np.floating[Any]]) -> str:
        nans = int(np.count_nonzero(np.isnan(flat)))
        others = int(np.count_nonzero(~(np.abs(flat) <= _LARGEST))) - nans
        cure = "" if nans else FINITE_MASK
        return (
            f"Tensor {self._name!r} holds {nans} NaN and {others} infinite (or beyond float32) "
            f"values among {flat.size}, so it has no quantization range{cure}."
        )


def histograms_to_arrays(histograms: Mapping[str, Histogram]) -> dict[str, NDArray[Any]]:
    """Pack named histograms into a few plain arrays, as :func:`numpy.savez` takes them."""
    parts = list(histograms.values())
    names = json.dumps(list(histograms)).encode()
    return {
        "names": np.frombuffer(names, dtype=np.uint8),
        "integers": np.array(
            [(h.exponent, h.first, h.counts.size, h.zeros) for h in parts], dtype=np.int64
        ).reshape(len(parts), 4),
        "extremes": np.array([(h.min, h.max) for h in parts], dtype=np.float64).reshape(-1, 2),
        "counts": np.concatenate([h.counts for h in parts] or [np.zeros(0, dtype=np.int64)]),
    }


def histograms_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Histogram]:
    """Inverse of :func:`histograms_to_arrays`.

    Raises:
        KeyError:
            If an array is missing.
        ValueError:
            If the arrays do not fit together.
    """
    names = json.loads(arrays["names"].tobytes())
    integers, extremes, counts = arrays["integers"], arrays["extremes"], arrays["counts"]
    if integers.shape != (len(names), 4) or extremes.shape != (len(names), 2):
        raise ValueError("The histogram arrays do not agree on the number of tensors.")
    stops = np.cumsum(integers[:, 2])
    if counts.shape != (int(stops[-1]) if len(names) else 0,):
        raise ValueError("The histogram arrays do not agree on the number of bins.")
    return {
        name: Histogram(
            exponent=int(row[0]),
            first=int(row[1]),
            counts=_read_only(counts[stop - row[2] : stop].astype(np.int64)),
            zeros=int(row[3]),
            min=float(extreme[0]),
            max=float(extreme[1]),
        )
        for name, row, extreme, stop in zip(names, integers, extremes, stops, strict=True)
    }


def _exponent_for(magnitude: float) -> int:
    """Smallest ``e`` with ``magnitude < BINS_PER_SIDE * 2**e``, as far as it matters."""
    if magnitude <= 0.0:
        return _MIN_EXPONENT
    return max(_MIN_EXPONENT, math.frexp(magnitude)[1] - _LOG2_BINS)


def _coarsen(first: int, counts: NDArray[np.int64], shift: int) -> tuple[int, NDArray[np.int64]]:
    """Merge each run of ``2**shift`` bins of the grid into one."""
    # Beyond this, everything already lies in the two bins around zero.
    shift = min(shift, _LOG2_BINS)
    if shift == 0 or counts.size == 0:
        return first, counts
    group = 1 << shift
    start = first >> shift
    stop = -(-(first + counts.size) // group)
    padded = np.zeros((stop - start) * group, dtype=np.int64)
    offset = first - start * group
    padded[offset : offset + counts.size] = counts
    return start, padded.reshape(-1, group).sum(axis=1)


def _read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    array.setflags(write=False)
    return array
