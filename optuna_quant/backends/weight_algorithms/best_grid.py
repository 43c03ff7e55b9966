"""The best scale and zero point of each group among those that an algorithm tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


class BestGrid:
    """Keeps the grid with the least error for each group; an earlier one wins ties.

    Args:
        scale:
            What to return if nothing is offered, of shape ``[n]``.
        zero_point:
            The same.
    """

    def __init__(self, scale: Floats, zero_point: Floats) -> None:
        self.scale = scale.copy()
        self.zero_point = zero_point.copy()
        self._errors = np.full(len(scale), np.inf)

    def offer(
        self,
        groups: NDArray[np.intp] | slice,
        scale: Floats,
        zero_point: Floats,
        errors: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """Take the grids that have less error.

        Args:
            groups:
                Of which groups they are.
            scale:
                Their scales.
            zero_point:
                Their zero points.
            errors:
                Their errors.

        Returns:
            Whether each was taken.
        """
        better = errors < self._errors[groups]
        for kept, new in (
            (self._errors, errors),
            (self.scale, scale),
            (self.zero_point, zero_point),
        ):
            kept[groups] = np.where(better, new, kept[groups])
        return better
