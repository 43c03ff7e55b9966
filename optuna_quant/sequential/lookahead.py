"""Precompute bets for candidates that agree with the baseline except on a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np

from optuna_quant.sequential.float_array import FloatArray
from optuna_quant.sequential.float_array import float_array


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.sequential.bets import Bets


# The part of all that a candidate may lose up to which this holds.
_PART_LOST = 0.9

# Without room a bet cannot be lost: the threshold is out of reach.
LEAST_ROOM = 1e-12

# A row for each bet.
_Table: TypeAlias = tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class Lookahead:
    """The wealth of bets against a threshold if a candidate agrees with the baseline throughout.

    A bet gains ``(a + l) / (r - l)``: ``l`` is what the candidate has lost to the baseline before,
    ``a`` what the draw says less than is needed, and ``r`` what it could say more at most. Since
    no draw says more than it can, ``a + r`` is not negative: the gain rises with ``l``, and is
    convex. So from 0 to ``most_lost`` it is at most linear between the ends, and for a candidate
    that has gained it is at most what it is at 0. Sums of both parts are kept here, so that the
    gain of many samples is known without going through them.

    Args:
        window:
            What a batch may have at most.
        most_lost:
            What a candidate may have lost for this to hold.
        path:
            The sum of gains for nothing lost, of shape ``(bets, samples + 1)``, from none seen on.
        peak:
            The highest that it was within the last ``window`` samples, of the same shape.
        slope:
            The sum of what each unit that was lost before adds at most, of the same shape.
        highest:
            The highest ``peak`` of all bets, of shape ``(samples + 1,)``.
        steepest:
            The sum of the highest parts of all bets' ``slope``, of the same shape.
        room:
            The room ``r`` of each sample, of shape ``(bets, samples)``.
        probabilities:
            The probability of each draw, of shape ``(samples,)``.
    """

    window: int
    most_lost: float
    path: _Table
    peak: _Table
    slope: _Table
    highest: FloatArray
    steepest: FloatArray
    room: _Table
    probabilities: FloatArray

    @classmethod
    def make(
        cls,
        bets: Bets,
        needed: float,
        *,
        normalized_sum: float,
        probabilities: FloatArray,
        window: int,
    ) -> Lookahead:
        """Look ahead.

        Args:
            bets:
                What each sample is worth before it is seen.
            needed:
                The sum of normalized scores that has to be reached.
            normalized_sum:
                That of the baseline.
            probabilities:
                The probability of each draw.
            window:
                What a batch may have at most.
        """
        most_lost = max(1.0, _PART_LOST * (normalized_sum - needed))
        short = needed - bets.said
        room = bets.most - needed
        # Where the room could be used up, nothing is known, and from there on.
        is_open = np.minimum.accumulate(room, axis=1) - most_lost > LEAST_ROOM
        rest = np.where(is_open, room - most_lost, 1.0)
        least = np.where(is_open, short / np.where(is_open, room, 1.0), np.inf)
        rise = np.where(is_open, ((short + most_lost) / rest - least) / most_lost, 0.0)
        path = _sums(least)
        peak = path.copy()
        reach = 1
        while reach < window:
            step = min(reach, window - reach)
            peak[:, step:] = np.maximum(peak[:, step:], peak[:, :-step])
            reach += step
        return cls(
            window=window,
            most_lost=most_lost,
            path=_table(path),
            peak=_table(peak),
            slope=_table(_sums(rise)),
            highest=float_array(peak.max(axis=0)),
            steepest=float_array(_sums(rise.max(axis=0, keepdims=True))),
            room=_table(room),
            probabilities=probabilities,
        )


class Foresight:
    """Follows a candidate through a lookahead, by the few samples on which it disagrees.

    Args:
        ahead:
            What lies ahead.
    """

    def __init__(self, ahead: Lookahead) -> None:
        self.window = ahead.window
        self._ahead = ahead
        self._above = [0.0] * len(ahead.path)  # The sum of gains, less the path.
        self._limits = [-math.inf] * len(ahead.path)  # Until it is anchored nothing is safe.
        self._left = -math.inf
        self._lost = 0.0
        self._known = 0  # Up to which sample the slope is in the sum.

    def anchor(self, seen: int, lost: float, drift: Sequence[float], limits: list[float]) -> None:
        """Begin at a sample where all is known.

        Args:
            seen:
                The number of samples seen.
            lost:
                What the candidate has lost to the baseline until then; negative if it gained.
            drift:
                The sum of gains of each bet so far.
            limits:
                The sum below which no strategy can have won, for each bet.
        """
        path = self._ahead.path
        self._above = [gains - row[seen] for gains, row in zip(drift, path, strict=True)]
        self._limits, self._lost, self._known = limits, lost, seen
        self._left = self._least_left()

    def is_safe(self, start: int, end: int, but: Sequence[tuple[int, float]]) -> bool:
        """Whether no strategy can have won on the next samples.

        If not, it has to be anchored again.

        Args:
            start:
                The number of samples seen before.
            end:
                The number of samples seen now, at most ``window`` more.
            but:
                Where the candidate does not agree with the baseline: the place of each sample
                after ``start``, from 0 on and rising, and what it gains there.
        """
        ahead, above, lost, known = self._ahead, self._above, self._lost, self._known
        won: list[float] = []
        most = lost
        for place, gain in but:
            sample = start + place
            loss = -gain / ahead.probabilities[sample]
            for bet, room in enumerate(ahead.room):
                rest = room[sample] - lost
                if rest <= LEAST_ROOM:
                    return False
                if lost > 0:
                    slope = ahead.slope[bet]
                    above[bet] += lost * (slope[sample + 1] - slope[known])
                if loss > 0:
                    above[bet] += loss / rest
                else:
                    # It may have been enough before this came.
                    won = won or [0.0] * len(above)
                    won[bet] += loss / rest
            known = sample + 1
            lost -= gain
            if lost > most:
                most = lost
        if most > ahead.most_lost:
            return False
        if but:
            self._left = self._least_left()
            self._lost, self._known = lost, known
        reached = ahead.highest[end]
        if lost > 0:
            reached += lost * (ahead.steepest[end] - ahead.steepest[known])
        if not reached < self._left and not self._is_below(end):
            return False
        if won:
            self._above = [gains + gained for gains, gained in zip(above, won, strict=True)]
            self._left = self._least_left()
        return True

    def _is_below(self, end: int) -> bool:
        """Whether each bet on its own is below its limit."""
        lost = max(self._lost, 0.0)
        known = self._known
        rows = zip(self._above, self._ahead.peak, self._ahead.slope, self._limits, strict=True)
        # A sum that is not known is no number, and is not below anything.
        return all(
            gains + peak[end] + lost * (slope[end] - slope[known]) < limit
            for gains, peak, slope, limit in rows
        )

    def _least_left(self) -> float:
        """The least that is left to a limit, but for the path."""
        least = math.inf
        for limit, gains in zip(self._limits, self._above, strict=True):
            if limit - gains < least:
                least = limit - gains
        return least


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _table(values: NDArray[np.float64]) -> _Table:
    return tuple(map(float_array, values))
