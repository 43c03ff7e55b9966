"""Whether what calibration saw of a tensor gives it a quantization range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.ranges.histogram import FINITE_MASK


if TYPE_CHECKING:
    from optuna_quant.backends.ranges.histogram import Histogram


STANDS_FOR_INFINITY = 1e30
"""Values from here on are no data but masks (the least float, for instance), beside which nothing
else would be left on a grid of 8 bits."""

RANGE_OF_ZEROS = (0.0, 255e-4)
"""A range for a tensor that is zero whatever the inputs are: any grid has zero. This one is fine
enough for the bias of an op, whose grid follows from those of its factors."""

_SMALLEST_EXTENT = 255 * float(np.finfo(np.float32).tiny)


class NoRangeError(ValueError):
    """A tensor has no quantization range.

    Args:
        tensor:
            Its name.
        reason:
            Why, as a sentence.
        samples:
            The calibration samples that are at fault, in words; empty if none are.
    """

    def __init__(self, tensor: str, reason: str, samples: str = "") -> None:
        super().__init__(reason)
        self.tensor = tensor
        self.samples = samples


class MissingRangesError(Exception):
    """Some ops cannot be quantized, because tensors around them have no range.

    Args:
        errors:
            What each of them lacks, by the node's position.
    """

    def __init__(self, errors: Mapping[int, NoRangeError]) -> None:
        super().__init__("; ".join(map(str, errors.values())))
        self.errors = errors


def range_problem(tensor: str, histogram: Histogram) -> str | None:
    """Why the values of a tensor give no range, as a sentence; None if they give one.

    A guess in place of a range (a scale of 1, say) would be wrong without a word as soon as the
    tensor holds other values.

    Args:
        tensor:
            Its name.
        histogram:
            Its finite values.
    """
    cure = ""
    if histogram.count == 0:
        seen = "is empty"
    elif max(-histogram.min, histogram.max) >= STANDS_FOR_INFINITY:
        largest = max(-histogram.min, histogram.max)
        seen = f"holds values as large as {largest:.3g}, which stand for infinity,"
        cure = FINITE_MASK
    elif max(0.0, histogram.max) - min(0.0, histogram.min) < _SMALLEST_EXTENT:
        seen = "is zero"
        cure = "; give samples in which it is not, if there are such"
    else:
        return None
    return (
        f"Tensor {tensor!r} {seen} in all calibration samples, so it has no quantization "
        f"range{cure}."
    )
