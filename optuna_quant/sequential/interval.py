"""Confidence intervals of the loss in the population from which the samples were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.rounding import bounds_slack
from optuna_quant.sequential.log_mean_exp import log_mean_exp


if TYPE_CHECKING:
    from numpy.typing import NDArray


CONFIDENCE = 0.95
"""With what probability an interval holds the loss, unless another one is asked for."""

# The betting strategies see the samples in so many orders, or fewer if there are many samples.
_MOST_ORDERS = 8
_MOST_BETS = 2**15
# The largest bet, as a part of what may be bet.
_LARGEST_FRACTION = 0.75
# The variance assumed before the first sample, as a part of its largest value.
_FIRST_VARIANCE = 0.25
# How many halvings find an end of the interval.
_STEPS = 26
# Of the probability of error, the part that the sign of the baseline may have, if it is not known.
_PART_OF_BASELINE = 0.1


def loss_interval(
    candidate: NDArray[np.float64],
    baseline: NDArray[np.float64],
    *,
    bounds: tuple[float, float],
    higher_is_better: bool,
    relative: bool,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """A confidence interval of a loss, from the scores of independent samples.

    The loss is that of :meth:`optuna_quant.AccuracyCriterion.loss`, of the means over the
    population from which the samples were drawn, independently of each other and of the
    candidate. The interval holds for any number of samples and any distribution within the
    bounds, not only approximately for many samples.

    For each loss one strategy bets that it is larger, and another that it is smaller, on the
    difference of the two scores, less the loss that is supposed (times the score of the baseline
    if it is relative). If that loss is the true one, the bets are fair, and the wealth of either
    becomes ``2 / (1 - confidence)`` times its start with a probability of at most
    ``(1 - confidence) / 2``, by Markov's inequality. The interval is of the losses against which
    neither gains so much. Bets follow the variance so far (Waudby-Smith and Ramdas, "Estimating
    means of bounded random variables by betting", 2024, section 4), and a wealth is the mean of
    the results in several orders of the samples. The orders are always the same ones, so that
    the interval is as well.

    If the baseline's scores may be of either sign and the loss is relative, there are two
    intervals, of the difference and of the baseline, and the result is all quotients of what is
    in them.

    Args:
        candidate:
            The scores of the quantized model, of shape ``(samples,)``.
        baseline:
            The scores of the FP32 model for the same samples, in the same order.
        bounds:
            The lowest and the highest score that any sample can have. Without them nothing could
            be said for certain: one score in a million may be enough to change the mean.
        higher_is_better:
            Whether a higher score is better.
        relative:
            Whether the loss is a part of the size of the baseline's mean.
        confidence:
            The probability with which the interval holds the loss, above 0 and below 1.

    Returns:
        The lower and the upper end. The loss of the samples themselves is between them. An end is
        infinite if the samples say nothing against it, as of a relative loss whose baseline may
        be zero.

    Raises:
        ValueError:
            If the scores are none, do not fit together or to the bounds, the confidence is out
            of its range, or the loss is relative and the mean of the baseline zero.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, but got {confidence}.")
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must be two finite numbers, the lower one first, not {bounds}.")
    c, b = _checked("candidate", candidate, bounds), _checked("baseline", baseline, bounds)
    if c.shape != b.shape:
        raise ValueError(
            f"candidate and baseline must be scores of the same samples, but there are {len(c)} "
            f"and {len(b)}."
        )
    worse = b - c if higher_is_better else c - b
    error = 1 - confidence
    size = high - low
    difference = _Quotient(worse, np.ones(len(c)), ((-size, 1.0), (size, 1.0)))
    if not relative:
        return difference.interval(error)
    if b.mean() == 0:
        raise ValueError("The mean of the baseline is 0, and a loss relative to 0 is not defined.")
    if low >= 0 or high <= 0:
        corners = itertools.product(bounds, bounds)
        ends = [(y - x if higher_is_better else x - y, abs(y)) for x, y in corners]
        return _Quotient(worse, np.abs(b), ends).interval(error)
    mean = _Quotient(b, np.ones(len(b)), ((low, 1.0), (high, 1.0)))
    return _quotients(
        difference.interval((1 - _PART_OF_BASELINE) * error),
        mean.interval(_PART_OF_BASELINE * error),
    )


@dataclass(frozen=True, eq=False)
class _Quotient:
    """The mean of ``tops`` over the mean of ``bottoms``, which are not negative.

    Args:
        tops:
            Of shape ``(samples,)``.
        bottoms:
            Of the same shape.
        ends:
            Pairs of a top and a bottom; whatever pair is possible is a mean of these.
    """

    tops: NDArray[np.float64]
    bottoms: NDArray[np.float64]
    ends: tuple[tuple[float, float], ...] | list[tuple[float, float]]

    def interval(self, error: float) -> tuple[float, float]:
        """Between which values it is, but for this probability of error."""
        fractions, orders = self._bet_fractions()
        return -self._end(-1, error, fractions, orders), self._end(1, error, fractions, orders)

    def _end(
        self, sign: int, error: float, fractions: NDArray[np.float64], orders: NDArray[np.intp]
    ) -> float:
        """The upper end of the quotient, or of its negative."""
        enough = math.log(2 / error)
        start = sign * float(self.tops.mean() / self.bottoms.mean())
        limit = max(_divided(sign * top, bottom) for top, bottom in self.ends)
        if start >= limit:
            return limit
        tops, bottoms = sign * self.tops[orders], self.bottoms[orders]
        ends = [(sign * top, bottom) for top, bottom in self.ends]
        # With so much the richest strategy makes it enough, or the mean is not.
        surely = enough + math.log(len(orders)) + 1e-9

        def is_refuted(value: float) -> bool:
            if value >= limit:
                return True
            most = max(top - value * bottom for top, bottom in ends)
            gains = value * bottoms
            gains -= tops
            gains *= np.minimum(fractions, _LARGEST_FRACTION / most)
            gained = np.log1p(gains, out=gains).sum(axis=1)
            richest: float = max(gained.tolist())
            if not enough <= richest < surely:
                return richest >= enough
            return bool(log_mean_exp(gained) >= enough)

        # A half is one scale away from the start, and one infinitely far.
        scale = max(abs(top) for top, _ in self.ends) / float(self.bottoms.mean())
        inside, outside = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            if is_refuted(start + scale * middle / (1 - middle)):
                outside = middle
            else:
                inside = middle
        return limit if outside == 1 else min(limit, start + scale * outside / (1 - outside))

    def _bet_fractions(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """The largest bet on each sample, and the orders of samples, both (orders, samples)."""
        samples = len(self.tops)
        count = max(1, min(_MOST_ORDERS, _MOST_BETS // samples))
        orders = _orders(count, samples)
        tops, bottoms = self.tops[orders], self.bottoms[orders]
        top_before = np.cumsum(tops, axis=1) - tops
        bottom_before = np.cumsum(bottoms, axis=1) - bottoms
        known = bottom_before > 0
        quotient = np.divide(top_before, bottom_before, out=np.zeros_like(tops), where=known)
        squares = np.square(tops - np.clip(quotient, -1, 1) * bottoms)
        first = _FIRST_VARIANCE * max(top * top for top, _ in self.ends)
        seen = np.cumsum(squares, axis=1) - squares
        variance = (first + np.maximum(seen, 0.0)) / np.arange(1, samples + 1)
        # The best fractions for the usual confidence, and fair for any other one. They do not
        # depend on it, so that a higher confidence gives a wider interval.
        return np.sqrt(2 * math.log(2 / (1 - CONFIDENCE)) / (samples * variance)), orders


@lru_cache(maxsize=4)
def _orders(count: int, samples: int) -> NDArray[np.intp]:
    """Some orders of the samples, the same ones each time."""
    generator = np.random.default_rng(0)
    return np.stack([generator.permutation(samples) for _ in range(count)])


def _quotients(tops: tuple[float, float], bottoms: tuple[float, float]) -> tuple[float, float]:
    """The least and the largest of tops over the sizes of bottoms."""
    most = max(abs(bottoms[0]), abs(bottoms[1]))
    least = 0.0 if bottoms[0] <= 0 <= bottoms[1] else min(abs(bottoms[0]), abs(bottoms[1]))
    return (
        _divided(tops[0], least if tops[0] < 0 else most),
        _divided(tops[1], least if tops[1] > 0 else most),
    )


def _divided(top: float, bottom: float) -> float:
    if bottom:
        return top / bottom
    return math.copysign(math.inf, top) if top else 0.0


def _checked(
    name: str, scores: NDArray[np.float64], bounds: tuple[float, float]
) -> NDArray[np.float64]:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"{name} must be scores of shape (samples,), at least one, but has the shape "
            f"{array.shape}."
        )
    rounding = bounds_slack(bounds)
    fits = (array >= bounds[0] - rounding) & (array <= bounds[1] + rounding)  # A NaN does not.
    if not fits.all():
        raise ValueError(
            f"{name} has the score {array[~fits][0]}, which is outside the bounds {bounds}."
        )
    return np.clip(array, *bounds)
