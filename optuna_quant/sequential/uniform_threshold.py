"""Test from sums over groups whether a mean over a finite population reaches a threshold.

The samples of a population of known size are seen in one uniformly shuffled order, some at a
time; of each group only the sum of the scores is known. A strategy bets, group by group, that the
mean over the population is lower than the threshold. If it is not, no way to bet makes money on
average, so wealth is evidence: it reaches ``1 / error_probability`` at any time at all with at
most that probability (Ville's inequality).

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(JRSS-B, 2024), section 5 on sampling without replacement, and "Confidence sequences for sampling
without replacement" (NeurIPS, 2020), for the martingale and its inversion; Hoeffding,
"Probability inequalities for sums of bounded random variables" (JASA, 1963), section 6, for the
comparison of a group with independent coin flips.

Where the score of each sample is known, :mod:`optuna_quant.sequential.weighted_threshold` is the
test to use, of samples that are drawn by weights.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from optuna_quant._common.rounding import ROUNDING
from optuna_quant.sequential.log_mean_exp import log_mean_exp


Array = npt.NDArray[np.float64]

_TILTS = np.array([0.0625, 0.125, 0.25, 0.5, 1.0])
"""How strongly each strategy bets on sums, in log odds: 0.7 is the way from 0.89 to 0.8."""
_BET_FRACTIONS = np.array([0.125, 0.25, 0.5, 1.0, 2.0])
"""How strongly each strategy bets on means, over the square root of a group's size."""
_LARGEST_TILT = 20.0
_LARGEST_BET_FRACTION = 2.0
_PAIRED = np.array([[0.5], [1.0]])
"""How much of the baseline's score is taken off the candidate's."""
_TINY = 1e-300


class PartialSum(NamedTuple):
    """The sums after some samples.

    Args:
        samples:
            The number of samples so far.
        total:
            The sum of the candidate's scores over them.
        baseline:
            The sum of the baseline's scores over the same samples, if it is known.
    """

    samples: int
    total: float
    baseline: float | None = None


class UniformThresholdTest:
    """Evidence against "the mean over the whole population is at least the threshold".

    Scores lie between 0 and 1, and higher is better. The wealth is the mean over strategies that
    bet fixed fractions, which grow with ``size / (size - samples)`` as do the gaps between what
    the threshold needs of the rest and what the candidate delivers. There are two kinds. One bets
    on the sum of a group as if its scores were coin flips: the best there is for a metric of right
    and wrong. The other bets on the mean of a group, and so profits if it varies less than coin
    flips would. Paired, the second kind bets also on the candidate's score minus the baseline's,
    and minus half of it.

    The threshold may be an array of any shape: a test for each of its elements, on the same
    order or (with totals of that shape) each on its own.

    Args:
        size:
            The number of samples in the population.
        threshold:
            The lowest mean that is good enough.
        baseline:
            The mean of the baseline's scores over the population; :obj:`None` (the default) to
            look at the candidate's scores only.
    """

    def __init__(
        self,
        size: int,
        threshold: npt.ArrayLike,
        *,
        baseline: npt.ArrayLike | None = None,
    ) -> None:
        self._size = size
        self._required = size * np.asarray(threshold, dtype=np.float64)[..., None]
        shape = self._required.shape[:-1]
        self._samples = 0
        self._total: Array = np.zeros((*shape, 1))
        self._sums: Array = np.zeros((*shape, len(_TILTS)))
        self._means: Array = np.zeros((*shape, len(_BET_FRACTIONS)))
        self._highest: Array = np.zeros(shape)
        self._baseline: Array | None = None
        self._pairs: Array | None = None
        self._is_paired = False
        if baseline is not None:
            self._baseline = size * np.asarray(baseline, dtype=np.float64)[..., None]
            self._pairs = np.zeros((*shape, len(_PAIRED), len(_BET_FRACTIONS)))
            self._seen_baseline: Array = np.zeros((*shape, 1))

    @property
    def log_wealth(self) -> Array:
        """The logarithm of the largest wealth so far, in the threshold's shape; at least 0."""
        return self._highest

    def update(
        self, samples: int, total: npt.ArrayLike, baseline: npt.ArrayLike | None = None
    ) -> None:
        """Bet on the samples since the last update.

        In a paired test, the bets are on the candidate alone until the baseline's sum is known
        for the first time. From then on, updates without it are left out: the next one with it
        covers their samples. (To look in between would be to see how a bet goes before deciding
        whether it is over.)

        Args:
            samples:
                The number of samples so far: more than at the last update, at most the size.
            total:
                The sum of the candidate's scores over all samples so far.
            baseline:
                The sum of the baseline's scores over the same samples, if it is known.

        Raises:
            ValueError:
                If the number of samples is out of its range.
        """
        if not self._samples < samples <= self._size:
            raise ValueError(
                f"samples must be more than {self._samples}, the number at the last update, and "
                f"at most {self._size}, the size of the population, but got {samples}."
            )
        if self._pairs is not None and baseline is None and self._is_paired:
            return
        count = samples - self._samples
        left = self._size - self._samples
        growth = self._size / left
        now = np.asarray(total, dtype=np.float64)[..., None]
        mean = np.minimum(np.maximum((now - self._total) / count, 0.0), 1.0)
        needed = (self._required - self._total) / left
        tilts = np.minimum(growth * _TILTS, _LARGEST_TILT)
        fractions = np.minimum(growth * _BET_FRACTIONS, _LARGEST_BET_FRACTION)
        self._sums += _bet_on_sum(needed, mean, count, tilts)
        self._means += _bet_on_mean(needed, mean, count, fractions)
        if self._baseline is not None and self._pairs is not None and baseline is not None:
            baseline_now = np.asarray(baseline, dtype=np.float64)[..., None]
            if self._is_paired or self._samples == 0:
                # The baseline's own scores, seen and to come, say what its part must be.
                drawn = (baseline_now - self._seen_baseline) / count
                rest = (self._baseline - self._seen_baseline) / left
                self._pairs += _bet_on_mean(
                    _scaled(needed, rest), _scaled(mean, drawn), count, fractions
                )
            else:  # Until now these strategies have copied the others.
                self._pairs += self._unpaired()[..., None, None]
            self._is_paired = True
            self._seen_baseline = baseline_now
        self._samples = samples
        self._total = now
        wealth = self._unpaired()
        if self._is_paired and self._pairs is not None:
            paired = log_mean_exp(self._pairs.reshape(*self._pairs.shape[:-2], -1))
            wealth = np.logaddexp(wealth, paired) - math.log(2)
        self._highest = np.maximum(self._highest, wealth)

    def rejects(self, error_probability: float) -> npt.NDArray[np.bool_]:
        """Whether the threshold will not be reached.

        That is so if the wealth has been large enough, or if the rest cannot bring what is
        needed. It is not if the samples so far already bring it. So after the last sample the
        answer is the truth.

        Args:
            error_probability:
                The probability, over all updates together, to reject a threshold that is reached.

        Returns:
            One answer for each element of the threshold.
        """
        missing = (self._required - self._total)[..., 0]
        rounding = ROUNDING * self._size
        impossible = missing > self._size - self._samples + rounding
        found = impossible | (self._highest >= -math.log(error_probability))
        if self._samples == self._size:
            found = impossible
        return np.asarray(found & (missing > rounding))

    def _unpaired(self) -> Array:
        return np.logaddexp(log_mean_exp(self._sums), log_mean_exp(self._means)) - math.log(2)


def mean_bounds(
    history: Sequence[PartialSum],
    size: int,
    *,
    error_probability: float,
    baseline: float | None = None,
) -> tuple[float, float]:
    """A lower and an upper bound of the mean over the population, valid at any time.

    Each is wrong with at most the error probability, however often one looks; neither is wider
    than what the worst and the best score for all the rest would give. The upper bound is the
    lowest threshold that :class:`UniformThresholdTest` rejects, found to about 2e-5; the lower
    bound is the upper bound of what the scores lack to 1.

    Args:
        history:
            What was known after each group, in order; scores between 0 and 1.
        size:
            The number of samples in the population.
        error_probability:
            Of each bound, above 0 and below 1.
        baseline:
            The mean of the baseline's scores over the population; :obj:`None` (the default) to
            look at the candidate's scores only.
    """
    mirrored = [
        PartialSum(
            s.samples, s.samples - s.total, None if s.baseline is None else s.samples - s.baseline
        )
        for s in history
    ]
    lack = None if baseline is None else 1 - baseline
    low = 1 - _upper_bound(mirrored, size, error_probability, lack)
    return low, max(low, _upper_bound(history, size, error_probability, baseline))


def _upper_bound(
    history: Sequence[PartialSum], size: int, error_probability: float, baseline: float | None
) -> float:
    if not history:
        return 1.0
    last = history[-1]
    low = min(max(last.total / size, 0.0), 1.0)
    high = min(low + (size - last.samples) / size, 1.0)
    for _ in range(3):
        grid = np.linspace(low, high, 41)
        test = UniformThresholdTest(size, grid, baseline=baseline)
        for seen in history:
            test.update(*seen)
        # The wealth grows with the threshold, so the first one that is rejected is the bound.
        rejected = np.flatnonzero(test.rejects(error_probability))
        if len(rejected) == 0 or rejected[0] == 0:
            break
        low, high = float(grid[rejected[0] - 1]), float(grid[rejected[0]])
    return high


def _bet_on_sum(needed: Array, mean: Array, count: int, tilts: Array) -> Array:
    """What betting on a group's sum multiplies the wealth by, in logarithms.

    ``exp(-tilt * sum)`` over the most that it can be on average: a sum of draws without
    replacement has no larger average of a convex function than one of coin flips of that mean.
    """
    needed = np.minimum(needed, 1.0)
    outcome: Array = -count * (tilts * mean + np.log1p(needed * np.expm1(-tilts)))
    return outcome


def _bet_on_mean(needed: Array, mean: Array, count: int, fractions: Array) -> Array:
    """What betting on a group's mean multiplies the wealth by, in logarithms.

    ``1 + bet * (needed - mean)``, but not below 0, with ``bet = fractions * sqrt(count)``. Where
    that cuts something off, the average may be above 1, by at most that of
    ``max(0, bet * (mean - needed) - 1)``; with ``max(0, x) <= exp(a * x - 1) / a`` for the best
    ``a``, and the sub-Gaussian variance of coin flips upwards, there is a bound of it.
    """
    needed = np.minimum(needed, 1.0)
    bets = math.sqrt(count) * fractions
    outcome: Array = np.log(np.maximum(1 + bets * (needed - mean), _TINY))
    cut = bets * (1 - needed) > 1
    if cut.any():
        centre = np.maximum(needed, 0.5)
        variance = np.maximum(fractions**2 * (centre * (1 - centre)), 0.01)
        a = (1 + np.sqrt(1 + 4 * variance)) / (2 * variance)
        outcome = outcome - cut * np.log1p(np.exp(a * (a * variance / 2 - 1) - 1) / a)
    return outcome


def _scaled(candidate: Array, baseline: Array) -> Array:
    """Scores minus parts of the baseline's, moved to [0, 1]; shape: ``(..., parts, 1)``."""
    part = _PAIRED
    scaled: Array = (candidate[..., None] - part * baseline[..., None] + part) / (1 + part)
    return scaled
