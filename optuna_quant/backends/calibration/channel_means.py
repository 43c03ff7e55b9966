"""The means of a tensor's channels over the calibration data, which bias correction needs."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


Place: TypeAlias = tuple[str, int]
"""A tensor, and the axis of its channels."""

Means: TypeAlias = "Mapping[Place, NDArray[np.float64]]"
"""The means of channels, of shape ``[size of the axis]``."""


class ChannelSum:
    """The sum of a tensor's values along one axis, and of how many."""

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | float = 0.0
        self._count = 0

    def add(self, values: NDArray[Any], axis: int) -> None:
        """Take values.

        Args:
            values:
                An array that has the axis.
            axis:
                The axis that is left.
        """
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        # Of another width than so far it has no mean for each place.
        if np.ndim(self._sum) and np.shape(self._sum) != (values.shape[axis],):
            self._sum = np.full(1, np.nan)
        else:
            self._sum = self._sum + values.sum(axis=others, dtype=np.float64)
            self._count += values.size // max(1, values.shape[axis])

    def mean(self) -> NDArray[np.float64] | None:
        """The means; None if there were no values, or such as have no finite means."""
        if not self._count or not isinstance(self._sum, np.ndarray):
            return None
        mean = self._sum / self._count
        return mean if np.isfinite(mean).all() else None


def means_to_arrays(means: Means) -> dict[str, NDArray[Any]]:
    """Pack means into plain arrays, as :func:`numpy.savez` takes them; none if there are none."""
    if not means:
        return {}
    places = json.dumps([[name, axis, len(mean)] for (name, axis), mean in means.items()])
    return {
        "mean_places": np.frombuffer(places.encode(), dtype=np.uint8),
        "means": np.concatenate(list(means.values())),
    }


def means_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[Place, NDArray[np.float64]]:
    """Inverse of :func:`means_to_arrays`.

    Raises:
        ValueError:
            If the arrays hold something else.
    """
    if "mean_places" not in arrays:
        return {}
    places, values = json.loads(arrays["mean_places"].tobytes()), arrays["means"]
    if sum(length for _, _, length in places) != len(values):
        raise ValueError("The means of channels are not as many as there are channels.")
    found, start = {}, 0
    for name, axis, length in places:
        found[str(name), int(axis)] = np.asarray(values[start : start + length], np.float64)
        start += length
    return found
