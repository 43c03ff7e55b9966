"""The extremes of each sample of a tensor, summed up exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


# All float32 values are multiples of the smallest subnormal. Sums of such integers are exact, so
# that they depend neither on the order of the samples nor on the batches.
_SHIFT = 149


@dataclass(frozen=True)
class SampleExtremes:
    """Sums over the samples of a tensor's least, largest and absolutely largest value.

    Args:
        samples:
            Number of samples.
        low:
            Sum of the least values, in units of ``2**-149``.
        high:
            Sum of the largest values, in the same units.
        magnitude:
            Sum of the largest absolute values, in the same units.
    """

    samples: int = 0
    low: int = 0
    high: int = 0
    magnitude: int = 0

    def __add__(self, other: SampleExtremes) -> SampleExtremes:
        return SampleExtremes(
            self.samples + other.samples,
            self.low + other.low,
            self.high + other.high,
            self.magnitude + other.magnitude,
        )

    @property
    def mean_low(self) -> float:
        """The mean of the least values; 0.0 without samples."""
        return self.low / (self.samples << _SHIFT) if self.samples else 0.0

    @property
    def mean_high(self) -> float:
        """The mean of the largest values; 0.0 without samples."""
        return self.high / (self.samples << _SHIFT) if self.samples else 0.0

    @property
    def mean_magnitude(self) -> float:
        """The mean of the largest absolute values; 0.0 without samples."""
        return self.magnitude / (self.samples << _SHIFT) if self.samples else 0.0


def extremes_of(values: NDArray[Any], samples: int) -> SampleExtremes:
    """The extremes of the samples of one batch.

    Where the length of the first axis is a multiple of the number of samples, it is taken as the
    axis of the samples, alone or before what is beside it (heads, tokens, windows): then each
    sample has equally many places in a row. Any other tensor is taken as a whole, and counts for
    each sample of the batch.

    Args:
        values:
            Finite floating-point array of any shape; an empty one counts for no sample.
        samples:
            How many samples the batch holds, at least 1.
    """
    if values.size == 0:
        return SampleExtremes()
    of_samples = values.ndim > 0 and values.shape[0] % samples == 0
    rows = values.reshape(samples if of_samples else 1, -1)
    low, high = _units(rows.min(axis=1)), _units(rows.max(axis=1))
    magnitude = [max(-least, most) for least, most in zip(low, high, strict=True)]
    counted = samples // len(low)
    return SampleExtremes(
        samples, counted * sum(low), counted * sum(high), counted * sum(magnitude)
    )


def extremes_to_arrays(extremes: Mapping[str, SampleExtremes]) -> dict[str, NDArray[Any]]:
    """Pack the extremes of named tensors into a plain array, as :func:`numpy.savez` takes it."""
    rows = {name: [e.samples, e.low, e.high, e.magnitude] for name, e in extremes.items()}
    return {"sample_extremes": np.frombuffer(json.dumps(rows).encode(), dtype=np.uint8)}


def extremes_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, SampleExtremes]:
    """Inverse of :func:`extremes_to_arrays`.

    Raises:
        KeyError:
            If the array is missing.
        ValueError:
            If it holds something else.
    """
    rows = json.loads(arrays["sample_extremes"].tobytes())
    found = {}
    for name, row in rows.items():
        if len(row) != 4 or not all(isinstance(number, int) for number in row):
            raise ValueError(f"The extremes of tensor {name!r} are not four integers.")
        found[str(name)] = SampleExtremes(*row)
    return found


def _units(values: NDArray[Any]) -> list[int]:
    return [int(value) for value in np.ldexp(values.astype(np.float64), _SHIFT).tolist()]
