"""Bets on a candidate's scores, with the baseline's scores as a control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Bets:
    """Bets on the candidate's score minus a control, a fraction of the baseline's score.

    The sum of the control is known beforehand. So with ``y`` for the difference to it, and ``q``
    for the probability of a draw, the draw *says* that the sum of all scores is what is known of
    it from the draws before, and ``y / q`` for the rest. That is what is expected of it.

    Args:
        said:
            What each draw says if the candidate agrees with the baseline, of shape
            ``(bets, samples)``. What the candidate gained on it before is to be added, and what
            it gained there over ``q``.
        most:
            The most that it can say, whatever is drawn and scored; of the same shape. What the
            candidate gained before is to be added.
    """

    said: NDArray[np.float64]
    most: NDArray[np.float64]
