"""How far a candidate may go, and how much it may lose, until a bet can have been won."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.evidence.population import Population


# How far it is looked ahead, in samples: as far as was seen so far, but within these.
_NEAREST = 256
_FURTHEST = 4096

_LEAST_ROOM = 1e-12


@dataclass(frozen=True, eq=False)
class Lookahead:
    """What the next samples can bring, bounded from above by sums.

    A candidate that agrees with the baseline on all of them changes what its gamblers have in a
    way that is known beforehand; each sample on which it is worse adds some gain, and each on
    which it is better takes some away. So as long as the gains that were added are less than what
    is left of the *budget*, no look at the capital can find that it is enough.

    Args:
        start:
            The number of samples that were seen when this was made.
        end:
            The number of samples until which it is known.
        most_lost:
            What the candidate may have lost to the baseline since then, in sum, for this to hold.
        gains:
            The most that the loss of 1 on each sample adds, of shape ``(ahead,)``.
        budget:
            How much may have been added up to each sample, of shape ``(ahead,)``. It falls.
    """

    start: int
    end: int
    most_lost: float
    gains: NDArray[np.float64]
    budget: NDArray[np.float64]

    @classmethod
    def make(
        cls,
        population: Population,
        still_needed: NDArray[np.float64],
        left: NDArray[np.float64],
        *,
        start: int,
        most_lost: float,
    ) -> Lookahead:
        """Look ahead.

        For a bet with the shortfall ``a`` of what the draw says against what is needed, and the
        room ``r`` between the most that it can say and what is needed, the gain is ``a / r``.
        After a loss of ``l`` it is ``(a + l) / (r - l)``, which rises with ``l``, since
        ``a + r >= 0``. So it is at most what it is for ``most_lost``.

        Args:
            population:
                The samples.
            still_needed:
                For each bet, what is left of the samples has to sum up to this at least; of shape
                ``(bets, 1)``.
            left:
                For each bet, the sum of gains that no gambler can win with, of shape
                ``(bets, 1)``.
            start:
                The number of samples seen.
            most_lost:
                How much may be lost until a new look.
        """
        # What lies ahead of the first sample is the same for all candidates.
        far = min(max(start, _NEAREST), _FURTHEST) if start else _FURTHEST
        end = min(start + far, population.samples)
        ahead = slice(start, end)
        bets = population.bets
        baseline = population.normal_baseline[ahead]
        probabilities = population.order.probabilities[ahead]
        agreed = baseline - bets.control[:, ahead]
        needed = agreed - np.add.accumulate(agreed, axis=1) + (still_needed + most_lost)
        room = bets.most[:, ahead] - needed
        is_open = room > _LEAST_ROOM
        np.maximum(room, _LEAST_ROOM, out=room)
        path = np.add.accumulate((needed - agreed / probabilities) / room, axis=1)
        budget = np.where(is_open, left - path, -np.inf).min(axis=0)
        return cls(
            start=start,
            end=end,
            most_lost=most_lost,
            gains=(1 / (probabilities * room)).max(axis=0),
            budget=np.minimum.accumulate(budget),
        )
