"""Test sample by sample whether the mean over all samples can still reach a threshold.

The samples are drawn by weights, without replacement, and the score of each is known.
:mod:`optuna_quant.sequential.uniform_threshold` is for sums over groups in a uniform order.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import enum
import math
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.rounding import ROUNDING
from optuna_quant.sequential.log_mean_exp import log_mean_exp
from optuna_quant.sequential.lookahead import LEAST_ROOM
from optuna_quant.sequential.lookahead import Foresight
from optuna_quant.sequential.lookahead import Lookahead


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.sequential.population import Population


# Each strategy always bets one of these fractions of the most that it may.
_BET_FRACTIONS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95])

# What a sum of rounded scores may be off.

# How often the range of a bound is halved: each takes a pass over what was seen.
_BISECTIONS = 9

# With more that differ, a look at all is faster.
_FEW_DIFFER = 12

# A promise is given after this many samples, and this part of all, at the earliest.
_FEWEST_FOR_PROMISE = 64
_PART_FOR_PROMISE = 1 / 16
# By how many standard deviations the estimate must be above the threshold: until this part of all
# samples, and from then on.
_PROMISE_DEVIATIONS = 1.64
_PART_FOR_BELIEF = 1 / 3
_BELIEF_DEVIATIONS = 0.6


class Decision(enum.StrEnum):
    """What the samples seen so far say."""

    OPEN = "open"
    """Nothing yet."""
    FAILS = "fails"
    """The threshold is missed, but for the stated probability of error."""
    PROVISIONALLY_MET = "provisionally met"
    """The threshold is probably met: enough to go on with, not a result."""
    MEETS = "meets"
    """The threshold is met, whatever the rest brings."""


class WeightedThresholdTest:
    """Follows a candidate through the samples until it is decided.

    It holds that the candidate *fails* once a bet against its reaching the threshold has gained
    ``1 / error_probability`` times the initial wealth. Bets are placed on each sample before it is
    seen, and are fair or worse if the threshold is reached, so by Ville's inequality that happens
    with at most the stated probability, however often one looks. The wealth is the mean over
    several strategies, each of which bets a fixed fraction of the most that it may; they bet on
    the candidate's score and on its difference to the baseline's (Waudby-Smith and Ramdas,
    "Estimating means of bounded random variables by betting", 2024, sections 4 and 5 on sampling
    without replacement). Samples may be drawn by weights: then each counts by one over its
    probability (Shekhar, Xu, Lipton, Liang and Ramdas, "Risk-limiting financial audits via
    weighted sampling without replacement", 2023).

    Beside it stands the exact bound: it fails if not even the best scores for all that is left
    reach the threshold, and *meets* if the worst do. Where scores have no worst
    (:attr:`Population.has_worst`) there is that bound alone, nothing meets before all samples were
    seen, and nothing is met provisionally.

    *Provisionally met* is no such statement. It supposes that the candidate differs from the
    baseline as often as the samples' weights say, as it did so far, and asks for about nine to one
    that the threshold is met, and that the unbiased :func:`estimate` does so as well.

    Args:
        population:
            The samples.
        threshold:
            The mean of normalized scores that has to be reached.
        broken_promises:
            How many promises were broken so far: for each, twice as many samples are asked for
            before another one is made.
    """

    def __init__(
        self, population: Population, threshold: float, *, broken_promises: int = 0
    ) -> None:
        self._population = population
        self._samples = population.samples
        self._sums = population.normalized_sums
        fewest = max(_FEWEST_FOR_PROMISE, _PART_FOR_PROMISE * population.samples)
        self._fewest = min(population.samples, fewest * 2**broken_promises)
        self._needed = population.samples * (threshold - ROUNDING)
        bets = len(population.bets.said)
        self._wealth = np.zeros((bets, len(_BET_FRACTIONS)))  # Logarithms.
        self._pending: list[NDArray[np.float64]] = []  # Bets that are not in the wealth yet.
        self._drift = np.zeros((bets, 1))  # Their sum.
        self._enough = -math.log(population.error_probability)
        # The sum below which no strategy can have enough, for each bet.
        self._limits = [self._enough / float(_BET_FRACTIONS[-1])] * bets
        self._total = 0.0  # The sum of the scores.
        self._squares = 0.0  # Of the differences to the baseline.
        self._raj_sum = 0.0  # Of what each draw says about the sum of those differences.
        self._gained = 0.0  # The sum of those differences.
        self._foresight: Foresight | None = None
        self._looked = 0  # The bets were looked at up to this sample,
        self._gained_looked = 0.0  # when this was the sum of the differences.
        self._changed: list[tuple[int, Sequence[tuple[int, float]]]] = []  # Since then.
        self._final: Decision | None = None
        self.seen = 0
        self.fails = False  # Whether the decision is Decision.FAILS.
        self.is_exact = False

    @property
    def decision(self) -> Decision:
        """What the samples seen so far say."""
        if self._final is not None:
            return self._final
        return Decision.PROVISIONALLY_MET if self._is_promising() else Decision.OPEN

    def update(self, scores: NDArray[np.float64]) -> Decision:
        """Take in the normalized scores of the next samples, in the order of evaluation.

        Args:
            scores:
                The scores, of shape ``(count,)``.

        Returns:
            The decision on all that was seen. Once it is :attr:`Decision.FAILS` it stays, and
            later samples have influence on the estimate only.
        """
        count = len(scores)
        if not count:
            return self.decision
        start, end = self.seen, self.seen + count
        gains = np.asarray(scores, np.float64) - self._population.normalized_baseline[start:end]
        within = np.add.accumulate(gains)
        drawn = gains / self._population.order.probabilities[start:end]
        before = self._gained
        self._raj_sum += count * before + float(np.add.reduce(within - gains + drawn))
        self._gained += float(within[-1])
        self._squares += float(gains @ gains)
        if not self._is_known(end):
            self._look(end, gains)
        return self.decision

    def agree(self, count: int, but: Sequence[tuple[int, float]] = ()) -> None:
        """Take in the next samples, on which the candidate scores as the baseline does.

        It concludes what :meth:`update` does, but takes about a microsecond, and as much again for
        each sample on which the scores differ.

        Args:
            count:
                How many they are.
            but:
                The few on which they do: the place of each among them, from 0 on and rising, and
                by how much its normalized score is higher.
        """
        if not count:
            return
        start, end = self.seen, self.seen + count
        self._raj_sum += count * self._gained
        if but:
            probabilities = self._population.probabilities
            gained = self._gained
            for place, gain in but:
                gained += gain
                self._raj_sum += gain * (count - place - 1 + 1 / probabilities[start + place])
                self._squares += gain * gain
            self._gained = gained
            self._changed.append((start, but))
        if self._is_known(end):
            return
        if self._foresight is None or count > self._foresight.window:
            self._foresight = self._foresee(start, count)
        if len(but) > _FEW_DIFFER or not self._foresight.is_safe(start, end, but):
            self._look(end)

    def _foresee(self, start: int, count: int) -> Foresight:
        population = self._population
        known = population.lookaheads  # What lies ahead is the same for all candidates.
        # Batches may differ in size, but not each needs its own.
        window = 1 << (count - 1).bit_length()
        key = self._needed, window
        if key not in known:
            known[key] = Lookahead.make(
                population.bets,
                self._needed,
                normalized_sum=population.normalized_sum,
                probabilities=population.probabilities,
                window=window,
            )
        foresight = Foresight(known[key])
        if self._looked == start:
            self._anchor(foresight)
        return foresight

    def _anchor(self, foresight: Foresight) -> None:
        drift = self._drift[:, 0].tolist()
        foresight.anchor(self._looked, -self._gained_looked, drift, self._limits)

    def _is_known(self, end: int) -> bool:
        """Whether these samples leave nothing for the bets to say."""
        self.seen = end
        total = self._total = self._sums[end] + self._gained
        if self.fails:
            return True
        if total + self._samples - end < self._needed:
            self._final, self.fails, self.is_exact = Decision.FAILS, True, True
        elif total >= self._needed and (self._population.has_worst or end == self._samples):
            self._final, self.is_exact = Decision.MEETS, True
        else:
            return not len(self._wealth)
        return True

    def _look(self, end: int, last: NDArray[np.float64] | None = None) -> None:
        """Find out whether a bet is won with what came since the last look.

        Args:
            end:
                The number of samples seen.
            last:
                The gains of the last samples, if they are not among those that changed.
        """
        start, before = self._looked, self._gained_looked
        gains = self._gains_since(start, end, last)
        population = self._population
        bets, ahead = population.bets, slice(start, end)
        needed = self._needed - (np.add.accumulate(gains) - gains + before)
        said = bets.said[:, ahead] + gains / population.order.probabilities[ahead]
        won = _won(needed, said, bets.most[:, ahead])
        drift = np.add.accumulate(won, axis=1)
        drift += self._drift
        self._drift = drift[:, -1:]
        self._pending.append(won)
        peaks = np.maximum.reduce(drift, axis=1).tolist()
        if any(peak >= limit for peak, limit in zip(peaks, self._limits, strict=True)):
            self._settle(end)
        self._looked, self._gained_looked, self._changed = end, self._gained, []
        if self._foresight is not None:
            self._anchor(self._foresight)

    def _gains_since(
        self, start: int, end: int, last: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        if last is not None and len(last) == end - start:
            return last
        gains = np.zeros(end - start)
        for begin, but in self._changed:
            for place, gain in but:
                gains[begin - start + place] = gain
        if last is not None:
            gains[-len(last) :] = last
        return gains

    def _settle(self, end: int) -> None:
        """Add to the wealth what was won, and see whether it was enough at any time."""
        path = _path(self._wealth, np.concatenate(self._pending, axis=1))
        self._wealth = np.maximum(path[:, :, -1], -1e6)
        self._pending, self._drift = [], np.zeros_like(self._drift)
        # A bet of the fraction s that gains x makes log(1 + s * x), which is at most s * x.
        self._limits = ((self._enough - self._wealth) / _BET_FRACTIONS).min(axis=1).tolist()
        if end < self._population.samples and _reaches(path, self._enough):
            self._final, self.fails = Decision.FAILS, True

    @property
    def estimate(self) -> float:
        """An estimate of the mean of all normalized scores, between what it can be.

        That of :func:`estimate`, which is unbiased, but moved to the next mean that is possible.
        """
        total, samples = self._total, self._population.samples
        left = samples - self.seen
        worst = total if self._population.has_worst else -math.inf
        return min(max(self._estimated, worst), total + left) / samples

    @property
    def _estimated(self) -> float:
        """The unbiased estimate of the sum of all scores, see :func:`estimate`."""
        return self._population.normalized_sum + self._raj_sum / max(1, self.seen)

    def _is_promising(self) -> bool:
        population = self._population
        order, seen = population.order, self.seen
        if not population.has_worst:
            return False  # The next sample may change it by any amount.
        if seen < self._fewest or self._estimated < self._needed:
            return False
        left = float(order.weight_left[seen]) if seen < population.samples else 0.0
        ratio = left / (float(order.weight_left[0]) - left)
        gained = self._gained * (1 + ratio)
        # As if two more samples had changed, so that none is not certainty.
        variance = (self._squares + 2.0) * ratio * (1 + ratio)
        slack = gained + population.normalized_sum - self._needed
        is_late = seen >= _PART_FOR_BELIEF * population.samples
        deviations = _BELIEF_DEVIATIONS if is_late else _PROMISE_DEVIATIONS
        return slack >= deviations * math.sqrt(variance)


def follow(
    population: Population,
    threshold: float,
    scores: NDArray[np.float64],
    *,
    broken_promises: int = 0,
) -> WeightedThresholdTest:
    """The test of a candidate whose first normalized scores are known.

    Args:
        population:
            The samples.
        threshold:
            The mean of normalized scores that has to be reached.
        scores:
            The scores so far, in the order of evaluation.
        broken_promises:
            How many promises were broken so far.
    """
    test = WeightedThresholdTest(population, threshold, broken_promises=broken_promises)
    test.update(scores)
    return test


def estimate(population: Population, scores: NDArray[np.float64]) -> float:
    """An unbiased estimate of the mean of all normalized scores, from the first.

    The mean of what each draw says: the sum of the samples before it, and its own score over its
    probability (Raj, "Some estimators in sampling with varying probabilities without
    replacement", 1956), on the differences to the baseline.

    Args:
        population:
            The samples.
        scores:
            The scores so far, in the order of evaluation; at least one.
    """
    seen = len(scores)
    baseline = population.normalized_baseline
    gains = scores - baseline[:seen]
    if seen < population.samples:
        before = np.concatenate([[0.0], np.cumsum(gains)[:-1]])
        gained = float((before + gains / population.order.probabilities[:seen]).mean())
    else:
        gained = float(gains.sum())
    return population.normalized_baseline_mean + gained / population.samples


def bounds(population: Population, scores: NDArray[np.float64]) -> tuple[float, float]:
    """Between which means of all normalized scores the first ones leave the truth.

    Each bound is wrong with at most the error probability of the population, however often one
    looks: all means beyond it are those that :class:`WeightedThresholdTest` gives up, and the same
    with the worst and the best exchanged.

    Args:
        population:
            The samples.
        scores:
            The scores so far, in the order of evaluation.
    """
    scores = np.asarray(scores, dtype=np.float64)
    high = _upper_bound(population, scores)
    if not population.has_worst:
        return -math.inf if len(scores) < population.samples else high, high
    low = 1 - _upper_bound(population.mirrored, 1 - scores)
    return min(low, high), high


def _upper_bound(population: Population, scores: NDArray[np.float64]) -> float:
    samples, total = population.samples, float(scores.sum())
    low, high = total / samples, (total + samples - len(scores)) / samples
    if not len(population.bets.said) or len(scores) in (0, samples):
        return high
    gives_up = _given_up(population, scores)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if gives_up(middle):
            high = middle
        else:
            low = middle
    return high


def _given_up(population: Population, scores: NDArray[np.float64]) -> Callable[[float], bool]:
    """Which thresholds :class:`WeightedThresholdTest` gives up after some of the samples.

    It computes what a test of each does, but only once what is the same for all.
    """
    end, samples, bets = len(scores), population.samples, population.bets
    gains = scores - population.normalized_baseline[:end]
    within = np.add.accumulate(gains)
    total = population.normalized_sums[end] + float(within[-1])
    before = within - gains
    said = bets.said[:, :end] + gains / population.order.probabilities[:end]
    most = bets.most[:, :end]
    enough = -math.log(population.error_probability)
    wealth = np.zeros((len(said), len(_BET_FRACTIONS)))

    def gives_up(threshold: float) -> bool:
        needed = samples * (threshold - ROUNDING)
        if total + samples - end < needed:
            return True
        if total >= needed and population.has_worst:
            return False
        won = _won(needed - before, said, most)
        if not np.any(np.add.accumulate(won, axis=1) >= enough / _BET_FRACTIONS[-1]):
            return False
        return _reaches(_path(wealth, won), enough)

    return gives_up


# The bets.


def _won(
    needed: NDArray[np.float64], said: NDArray[np.float64], most: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the largest bets on some draws win, of shape ``(bets, samples)``."""
    won = np.subtract(needed, said)
    won /= np.maximum(most - needed, LEAST_ROOM)
    return won


def _path(wealth: NDArray[np.float64], won: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the wealth of each strategy after each draw.

    Args:
        wealth:
            That before the first, of shape ``(bets, fractions)``.
        won:
            What the largest bets win.
    """
    path = _BET_FRACTIONS[:, None] * won[:, None, :]
    path += 1
    np.log(np.maximum(path, 1e-100, out=path), out=path)
    np.add.accumulate(path, axis=2, out=path)
    path += wealth[:, :, None]
    return path


def _reaches(path: NDArray[np.float64], enough: float) -> bool:
    """Whether the mean wealth of the strategies is enough at any time."""
    path = path.reshape(-1, path.shape[2])
    # The mean is at most what the richest has: before that is enough, nothing need be computed.
    late = np.flatnonzero(path.max(axis=0) >= enough)
    if not len(late):
        return False
    return bool(log_mean_exp(path[:, max(0, late[0] - 1) :], axis=0).max() >= enough)
