"""How far tensors are from what they should be, summed up batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


# This part of the mean square counts as variance: else any error in a channel that hardly varies
# would be a total loss.
_FLOOR = 1e-3


class RelativeError:
    """The mean squared error of a tensor over the variance of its exact values.

    What does not vary carries no information, so a large constant does not hide an error. Only
    sums are kept. Where the exact values are not finite nothing is compared; a value that is not
    finite but should be counts as zero. Values that are not floating-point (labels, truth values,
    texts) are right or wrong, and the error is the part of them that is wrong.

    Args:
        axis:
            The channel axis; :obj:`None` if there is none.
    """

    def __init__(self, axis: int | None = None) -> None:
        self._axis = axis
        # Rows: numbers, squared errors, values, squared values. A column for each channel.
        self._sums = np.zeros((4, 1))

    def update(self, exact: NDArray[Any], actual: NDArray[Any]) -> None:
        """Add a batch.

        Args:
            exact:
                The values as they should be.
            actual:
                The values as they are; of another shape, they are all wrong: zeros for floats.
        """
        if np.issubdtype(exact.dtype, np.floating):
            finite = np.isfinite(exact)
            values = np.where(finite, exact, 0).astype(np.float64)
            squares = np.square(values)
            error = squares
            if exact.shape == actual.shape:
                error = np.square(np.where(finite & np.isfinite(actual), actual, 0) - values)
        else:
            # The variance is one, so that the error is the part that is wrong.
            finite = np.ones(exact.shape, dtype=bool)
            values, squares = np.zeros(exact.shape), np.ones(exact.shape)
            error = squares if exact.shape != actual.shape else exact != actual
        sums = np.stack([self._sum(part) for part in (finite, error, values, squares)])
        if self._sums.shape[1] != sums.shape[1] and self._sums[0].any():
            # The number of channels differs between batches, so they are no channels.
            self._axis = None
            self._sums, sums = (part.sum(axis=1, keepdims=True) for part in (self._sums, sums))
        self._sums = self._sums + sums

    def _sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        if self._axis is None or not -values.ndim <= self._axis < values.ndim:
            return np.asarray(values.sum(), dtype=np.float64).reshape(1)
        axis = self._axis % values.ndim
        others = tuple(i for i in range(values.ndim) if i != axis)
        return np.asarray(values.sum(axis=others), dtype=np.float64)

    @property
    def whole(self) -> float:
        """The error of the tensor as a whole: 1 if it might as well be constant."""
        _, error, _, power = self._sums
        scale = self._variation() + _FLOOR * power
        return float(_ratio(error.sum(keepdims=True), scale.sum(keepdims=True))[0])

    @property
    def by_channel(self) -> float:
        """The mean over the channels of the error of each, which counts as at most 1."""
        _, error, _, power = self._sums
        return float(np.minimum(_ratio(error, self._variation() + _FLOOR * power), 1.0).mean())

    def _variation(self) -> NDArray[np.float64]:
        """The squared deviations from the mean of each channel."""
        number, _, total, power = self._sums
        return np.asarray(np.maximum(power - np.square(total) / np.maximum(number, 1), 0.0))


def _ratio(error: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The error over its scale; 0 for no error, 1 for any error where there is no scale."""
    ratio = (error > 0).astype(np.float64)
    np.divide(error, scale, out=ratio, where=scale > 0)
    return ratio
