"""Whether the mean over all samples can still reach a threshold, as samples come in."""

from __future__ import annotations

from collections.abc import Sequence
import enum
import math
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.evidence.lookahead import Lookahead


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.evidence.population import Population


# The gamblers stake these parts of the most that they may, whatever comes.
_STAKES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95])

# What a sum of rounded scores may be off.
_ROUNDING = 1e-9

# How often the range of a bound is halved: each takes a pass over what was seen.
_BISECTIONS = 9

# How much of what a candidate can still lose it may lose until the bets are looked at again. More
# is allowed for longer, but less of it.
_PART_LOST = 0.5

# A promise is given after this many samples, and this part of all, at the earliest.
_FEWEST_FOR_PROMISE = 64
_PART_FOR_PROMISE = 1 / 16
# By how many standard deviations the estimate must be above the threshold: until this part of all
# samples, and from then on.
_PROMISE_DEVIATIONS = 1.64
_PART_FOR_BELIEF = 1 / 3
_BELIEF_DEVIATIONS = 0.6


class Verdict(enum.StrEnum):
    """What the samples seen so far say."""

    OPEN = "open"
    """Nothing yet."""
    FAILS = "fails"
    """The threshold is missed, but for the stated probability of error."""
    PROMISED = "promised"
    """The threshold is probably met: enough to go on with, not a result."""
    MEETS = "meets"
    """The threshold is met, whatever the rest brings."""


class ThresholdTest:
    """Follows a candidate through the samples, until its fate is known.

    It holds that the candidate *fails* once a bet against its reaching the threshold has gained
    ``1 / error_probability`` times the stake. Bets are placed on each sample before it is seen,
    and are fair or worse if the threshold is reached, so by Ville's inequality that happens with
    at most the stated probability, however often one looks. The capital is the mean of several
    gamblers', each of whom stakes a fixed part of what may be staked; they bet on the candidate's
    score and on its difference to the baseline's (Waudby-Smith and Ramdas, "Estimating means of
    bounded random variables by betting", 2024, sections 4 and 5 on sampling without replacement).
    Samples may be drawn by weights: then each counts by one over its probability (Shekhar, Xu,
    Lipton, Liang and Ramdas, "Risk-limiting financial audits via weighted sampling without
    replacement", 2023).

    Beside it stands the exact bound: it fails if not even the best scores for all that is left
    reach the threshold, and *meets* if the worst do.

    *Promised* is no such statement. It supposes that the candidate differs from the baseline as
    often as the samples' weights say, as it did so far, and asks for about nine to one that the
    threshold is met, and that the unbiased :func:`estimate` does so as well.

    Args:
        population:
            The samples.
        threshold:
            The mean of normal scores that has to be reached.
        caution:
            How many promises were broken so far: for each, twice as many samples are asked for
            before another one is made.
        looks_ahead:
            Whether to find out beforehand how long nothing can be decided. It saves time if the
            samples come in small batches, and changes nothing else.
    """

    def __init__(
        self,
        population: Population,
        threshold: float,
        *,
        caution: int = 0,
        looks_ahead: bool = True,
    ) -> None:
        self._population = population
        self._threshold = threshold
        fewest = max(_FEWEST_FOR_PROMISE, _PART_FOR_PROMISE * population.samples)
        self._fewest = min(population.samples, fewest * 2**caution)
        self._needed = population.samples * (threshold - _ROUNDING)
        bets = population.bets
        # What is left has to sum up to this, at least, for each control.
        self._still_needed = self._needed - bets.total[:, None]
        self._capital = np.zeros((len(bets.control), len(_STAKES)))  # Logarithms.
        self._pending: list[NDArray[np.float64]] = []  # Bets that are not in the capital yet.
        self._drift = np.zeros((len(bets.control), 1))  # Their sum.
        self._enough = -math.log(population.error_probability)
        self._total = 0.0  # The sum of the scores.
        self._squares = 0.0  # Of the differences to the baseline.
        self._raj_sum = 0.0  # Of what each draw says about the sum of those differences.
        self._gained = 0.0  # The sum of those differences.
        self._lookahead: Lookahead | None = None
        self._next_lookahead = 0 if looks_ahead else population.samples
        self._wait = 0  # For how many samples it is not looked ahead, after a short one.
        self._looked = 0  # The bets were looked at up to this sample.
        self._changed: list[tuple[Any, Any]] = []  # Since then: samples, and their differences.
        self._behind = 0.0  # The gain until then.
        self._lost = 0.0  # Since then: the most that the candidate was behind,
        self._spent = 0.0  # and what its losses may have gained.
        self._final: Verdict | None = None
        self.seen = 0
        self.fails = False  # Whether the verdict is Verdict.FAILS.
        self.is_exact = False

    @property
    def verdict(self) -> Verdict:
        """What the samples seen so far say."""
        if self._final is not None:
            return self._final
        return Verdict.PROMISED if self._is_promising() else Verdict.OPEN

    def update(self, scores: NDArray[np.float64]) -> Verdict:
        """Take in the normal scores of the next samples, in the order of evaluation.

        Args:
            scores:
                The scores, of shape ``(count,)``.

        Returns:
            The verdict on all that was seen. Once it is :attr:`Verdict.FAILS` it stays, and
            later samples have influence on the estimate only.
        """
        count = len(scores)
        if not count:
            return self.verdict
        start, end = self.seen, self.seen + count
        gains = np.asarray(scores, np.float64) - self._population.normal_baseline[start:end]
        within = np.add.accumulate(gains)
        drawn = gains / self._population.order.probabilities[start:end]
        before = self._gained
        self._raj_sum += count * before + float(np.add.reduce(within - gains + drawn))
        self._gained += float(within[-1])
        self._squares += float(gains @ gains)
        self._changed.append((slice(start, end), gains))
        ahead = self._lookahead or self._ahead()
        if ahead is not None and end <= ahead.end:
            first = start - ahead.start
            losses = np.maximum(-gains, 0)
            self._spent += float(losses @ ahead.gains[first : first + count])
            self._lost = max(self._lost, self._behind - before - float(np.minimum.reduce(within)))
        self._conclude(end, ahead)
        return self.verdict

    def agree(self, count: int, but: Sequence[tuple[int, float]] = ()) -> None:
        """Take in the next samples, on which the candidate scores as the baseline does.

        The same as :meth:`update`, but it takes about a microsecond.

        Args:
            count:
                How many they are.
            but:
                The few on which it does not: the place of each among them, from 0 on and rising,
                and by how much its normal score is higher.
        """
        ahead = self._lookahead or self._ahead()
        start, end = self.seen, self.seen + count
        self._raj_sum += count * self._gained
        if but:
            self._count(start, end, but, ahead)
        self._conclude(end, ahead)

    def _count(
        self, start: int, end: int, but: Sequence[tuple[int, float]], ahead: Lookahead | None
    ) -> None:
        probabilities = self._population.order.probabilities
        gained = self._gained
        samples, gains = [], []
        for place, gain in but:
            sample = start + place
            samples.append(sample)
            gains.append(gain)
            gained += gain
            self._raj_sum += gain * (end - sample - 1) + gain / probabilities.item(sample)
            self._squares += gain * gain
            if gain < 0 and ahead is not None and end <= ahead.end:
                self._spent -= gain * ahead.gains.item(sample - ahead.start)
                self._lost = max(self._lost, self._behind - gained)
        self._gained = gained
        self._changed.append((samples, gains))

    def _ahead(self) -> Lookahead | None:
        """What the next samples can bring; :obj:`None` if it is not worth while to know."""
        if self.seen < self._next_lookahead or self._final is not None or not len(self._capital):
            return None
        # All candidates begin with the same.
        known = self._population.lookaheads
        if not self.seen and self._threshold in known:
            ahead = known[self._threshold]
        else:
            ahead = Lookahead.make(
                self._population,
                self._still_needed,
                ((self._enough - self._capital) / _STAKES).min(axis=1)[:, None] - self._drift,
                start=self.seen,
                most_lost=max(1.0, _PART_LOST * self._slack),
            )
            if not self.seen:
                known[self._threshold] = ahead
        self._lookahead = ahead
        self._behind = self._gained
        self._lost = self._spent = 0.0
        return ahead

    def _conclude(self, end: int, ahead: Lookahead | None) -> None:
        """Find out what is known for good after these samples."""
        start, self.seen = self.seen, end
        population = self._population
        total = self._total = population.normal_sums.item(end) + self._gained
        left = population.samples - end
        if self.fails:
            return
        if total + left < self._needed:
            self._final, self.fails, self.is_exact = Verdict.FAILS, True, True
            return
        if total >= self._needed:
            self._final, self.is_exact = Verdict.MEETS, True
            return
        if not len(self._capital) or (
            ahead is not None
            and end <= ahead.end
            and self._lost <= ahead.most_lost
            and self._spent < ahead.budget.item(end - ahead.start - 1)
        ):
            return
        if ahead is not None:
            lasted, count = start - ahead.start, end - start
            self._wait = 0 if lasted > count else max(count, 2 * self._wait)
            self._next_lookahead = end + self._wait
        if self._look() >= self._enough and left:
            self._final, self.fails = Verdict.FAILS, True

    def _look(self) -> float:
        """The highest logarithm of the capital since the last look.

        It is worked out only if it may be enough. A stake ``s`` on a bet that gains ``x`` makes
        ``log(1 + s * x)``, which is at most ``s * x``, so that the sum of the gains is a limit.
        """
        start, end = self._looked, self.seen
        population = self._population
        scores = population.normal_baseline[start:end].copy()
        for samples, gains in self._changed:
            if isinstance(samples, slice):
                scores[samples.start - start : samples.stop - start] += gains
            else:
                scores[np.array(samples) - start] += gains
        self._looked, self._changed, self._lookahead = end, [], None
        probabilities = population.order.probabilities[start:end]
        bets = population.bets
        differences = scores - bets.control[:, start:end]
        needed = differences - np.add.accumulate(differences, axis=1) + self._still_needed
        self._still_needed = needed[:, -1:] - differences[:, -1:]
        room = np.maximum(bets.most[:, start:end] - needed, 1e-12)
        gains = (needed - differences / probabilities) / room
        drift = np.add.accumulate(gains, axis=1) + self._drift
        self._drift = drift[:, -1:]
        self._pending.append(gains)
        peak = np.maximum.reduce(drift, axis=1)[:, None]
        if float((self._capital + _STAKES * peak).max()) < self._enough:
            return -math.inf
        gains = np.concatenate(self._pending, axis=1)
        steps = np.log(np.maximum(1 + _STAKES[:, None] * gains[:, None, :], 1e-100))
        path = self._capital[:, :, None] + np.cumsum(steps, axis=2)
        self._capital = np.maximum(path[:, :, -1], -1e6)
        self._pending, self._drift = [], np.zeros_like(self._drift)
        return float(_log_mean_exp(path.reshape(-1, path.shape[2])).max())

    @property
    def estimate(self) -> float:
        """An estimate of the mean of all normal scores, between what it can be.

        That of :func:`estimate`, which is unbiased, but moved to the next mean that is possible.
        """
        total, samples = self._total, self._population.samples
        left = samples - self.seen
        return min(max(self._estimated, total), total + left) / samples

    @property
    def _estimated(self) -> float:
        """The unbiased estimate of the sum of all scores, see :func:`estimate`."""
        return self._population.normal_sum + self._raj_sum / max(1, self.seen)

    @property
    def _slack(self) -> float:
        """How much more the candidate may lose and still reach the threshold."""
        return self._population.normal_sum + self._gained - self._needed

    def _is_promising(self) -> bool:
        population = self._population
        order, seen = population.order, self.seen
        if seen < self._fewest or self._estimated < self._needed:
            return False
        left = float(order.weight_left[seen]) if seen < population.samples else 0.0
        ratio = left / (float(order.weight_left[0]) - left)
        gained = self._gained * (1 + ratio)
        # As if two more samples had changed, so that none is not certainty.
        variance = (self._squares + 2.0) * ratio * (1 + ratio)
        slack = gained + population.normal_sum - self._needed
        is_late = seen >= _PART_FOR_BELIEF * population.samples
        deviations = _BELIEF_DEVIATIONS if is_late else _PROMISE_DEVIATIONS
        return slack >= deviations * math.sqrt(variance)


def follow(
    population: Population, threshold: float, scores: NDArray[np.float64], *, caution: int = 0
) -> ThresholdTest:
    """The test of a candidate whose first normal scores are known.

    Args:
        population:
            The samples.
        threshold:
            The mean of normal scores that has to be reached.
        scores:
            The scores so far, in the order of evaluation.
        caution:
            How many promises were broken so far.
    """
    test = ThresholdTest(population, threshold, caution=caution, looks_ahead=False)
    test.update(scores)
    return test


def estimate(population: Population, scores: NDArray[np.float64]) -> float:
    """An unbiased estimate of the mean of all normal scores, from the first.

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
    baseline = population.normal_baseline
    gains = scores - baseline[:seen]
    if seen < population.samples:
        before = np.concatenate([[0.0], np.cumsum(gains)[:-1]])
        gained = float((before + gains / population.order.probabilities[:seen]).mean())
    else:
        gained = float(gains.sum())
    return float(baseline.mean()) + gained / population.samples


def bounds(population: Population, scores: NDArray[np.float64]) -> tuple[float, float]:
    """Between which means of all normal scores the first ones leave the truth.

    Each bound is wrong with at most the error probability of the population, however often one
    looks: all means beyond it are those that :class:`ThresholdTest` gives up, and the same with
    the worst and the best exchanged.

    Args:
        population:
            The samples.
        scores:
            The scores so far, in the order of evaluation.
    """
    scores = np.asarray(scores, dtype=np.float64)
    high = _upper_bound(population, scores)
    low = 1 - _upper_bound(population.mirrored, 1 - scores)
    return min(low, high), high


def _upper_bound(population: Population, scores: NDArray[np.float64]) -> float:
    samples, total = population.samples, float(scores.sum())
    low, high = total / samples, (total + samples - len(scores)) / samples
    if not len(population.bets.control) or len(scores) in (0, samples):
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if follow(population, middle, scores).verdict is Verdict.FAILS:
            high = middle
        else:
            low = middle
    return high


def _log_mean_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    top = values.max(axis=0)
    return np.asarray(top + np.log(np.exp(values - top).mean(axis=0)))
