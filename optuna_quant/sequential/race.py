"""Race candidates: only those that may still be among the best get more samples."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.rounding import ROUNDING
from optuna_quant.sequential.weighted_threshold import estimate


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.sequential.population import Population


# Each round goes twice as far as the one before; the first sees at least so many samples.
_GROWTH = 2
_FEWEST = 32
_CLEAR_ERRORS = 2.0

# What a sum of rounded scores may be off.

_BET_FRACTIONS = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75])


def rounds(samples: int, *, count: int, fraction: float) -> tuple[int, ...]:
    """Up to how many samples each round of a race goes.

    Args:
        samples:
            The number of samples that there are.
        count:
            The most rounds.
        fraction:
            The fraction of the samples that the last round sees.
    """
    ends = (math.ceil(fraction * samples / _GROWTH**i) for i in reversed(range(count)))
    return tuple(sorted({min(samples, max(_FEWEST, end)) for end in ends}))


@dataclass(frozen=True)
class Rank:
    """How far a candidate got in a race.

    Args:
        round:
            The last round in which it took part.
        difference:
            By how much it was ahead of the baseline then, see :func:`mean_difference`.
        estimate:
            The estimate of its normalized mean at the end of that round.
    """

    round: int
    difference: float
    estimate: float


def survivors(
    population: Population,
    scores: Mapping[str, NDArray[np.float64]],
    *,
    top_k: int,
    samples: int,
    error_probability: float,
    count: int = 0,
) -> list[str]:
    """The candidates that continue after a round: at most the better half, if they may win.

    The half that is behind on the samples seen is out, as in sequential halving (Karnin, Koren and
    Somekh, "Almost optimal exploration in multi-armed bandits", 2013): what separates it from the
    others by much is seen on few samples. Since hard samples come first the
    :func:`mean_difference` may deceive, so the quarter that is *estimated* to be the best
    continues as well. By how much the best of those that are out may be better than the chosen
    one, :func:`regret_bound` tells.

    Of the better half, a candidate is out that is surely worse than ``top_k`` others: a bet on its
    not being worse has lost, betting as in :class:`WeightedThresholdTest` on the difference of the
    two (successive elimination: Even-Dar, Mannor and Mansour, "Action elimination and stopping
    conditions for the multi-armed bandit and reinforcement learning problems", 2006, with
    confidence sequences in place of their bounds). With probability ``1 - error_probability``
    none of the true ``top_k`` is out for that reason in any round of the race.

    Args:
        population:
            The samples.
        scores:
            The normalized scores of each candidate, in the order of evaluation.
        top_k:
            How many of the best matter.
        samples:
            How many samples the round has seen of each.
        error_probability:
            The probability of error, over all candidates and rounds of one race.
        count:
            How many candidates the race began with; those of this round by default.
    """
    names = list(scores)
    if len(names) <= top_k:
        return names
    level = _level(max(count, len(names)), error_probability)
    seen = np.array([scores[name][:samples] for name in names])
    ranked = sorted(range(len(names)), key=lambda i: -mean_difference(population, seen[i]))
    estimated = sorted(range(len(names)), key=lambda i: -estimate(population, seen[i]))
    leaders = ranked[:top_k]
    kept = {*leaders, *estimated[: max(top_k, len(names) // 4)]}
    for i in ranked[top_k : max(top_k, (len(names) + 1) // 2)]:
        if not all(_log_wealth(population, seen[i] - seen[j]) >= level for j in leaders):
            kept.add(i)
    return [name for i, name in enumerate(names) if i in kept]


def order_is_clear(
    population: Population,
    scores: Mapping[str, NDArray[np.float64]],
    *,
    samples: int,
    error_probability: float,
    count: int = 0,
) -> bool:
    """Whether the ranking of the candidates is clear.

    The arguments are those of :func:`survivors`.
    """
    level = _level(max(count, len(scores)), error_probability)
    seen = [one[:samples] for one in scores.values()]
    seen.sort(key=lambda one: -mean_difference(population, one))
    return all(
        _log_wealth(population, lower - upper) >= level
        for upper, lower in itertools.pairwise(seen)
    )


def regret_bound(
    population: Population,
    chosen: NDArray[np.float64],
    others: Sequence[NDArray[np.float64]],
    *,
    error_probability: float,
) -> float:
    """How much better than the chosen candidate one that was dropped may be.

    Args:
        population:
            The samples.
        chosen:
            The normalized scores of the one that was chosen.
        others:
            The normalized scores of the others, each as far as it was seen.
        error_probability:
            The probability that one of them is better by more.

    Returns:
        A difference of normalized means, at least 0.
    """
    # Any of them might have been the one that was chosen.
    level = _level(len(others) + 1, error_probability)
    most = 0.0
    for scores in others:
        count = min(len(scores), len(chosen))
        differences = scores[:count] - chosen[:count]
        if _log_wealth(population, differences, most) >= level:
            continue
        low, high = most, 1.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            if _log_wealth(population, differences, middle) >= level:
                high = middle
            else:
                low = middle
        most = high
    return most


def _level(count: int, error_probability: float) -> float:
    """What the logarithm of the wealth has to reach, with a bet for every ordered pair.

    Looking again in a later round costs nothing, so long as the pairs that went out still count:
    who is left was chosen by what was seen.
    """
    return math.log(max(2, count * (count - 1)) / error_probability)


def _log_wealth(
    population: Population, differences: NDArray[np.float64], mean: float = 0.0
) -> float:
    """The highest wealth of bets against the differences' having this mean or more."""
    count = len(differences)
    if not count:
        return 0.0
    total = (mean - ROUNDING) * population.samples
    before = np.concatenate([[0.0], np.cumsum(differences)[:-1]]) - total
    order = population.order
    # What is left may differ by 1 in each sample, the least likely one included.
    lightest = np.minimum.accumulate(order.weights[::-1])[::-1][:count]
    most = order.weight_left[:count] / lightest
    shortfall = -before - differences / order.probabilities[:count]
    fractions = _BET_FRACTIONS[:, None] / np.maximum(most + before, 1e-12)
    paths = np.cumsum(np.log(np.maximum(1 + fractions * shortfall, 1e-100)), axis=1)
    top = paths.max(axis=0)
    return float((top + np.log(np.exp(paths - top).mean(axis=0))).max())


def mean_difference(population: Population, scores: NDArray[np.float64]) -> float:
    """By how much a candidate is ahead of the baseline, on the samples that were seen.

    All candidates of a round have seen the same samples, so this orders them. It is no estimate
    of how far they are apart on all samples: hard ones are more frequent among the first. But it
    varies less than :func:`~optuna_quant.sequential.weighted_threshold.estimate`, in which a
    sample that is seldom drawn counts for many, and the order is what matters here.
    """
    return float((scores - population.normalized_baseline[: len(scores)]).mean())


def clearly_behind(population: Population, scores: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """The candidates expected to be worse than the best by more than two standard errors.

    The expectation is the estimate of the difference; its variance is estimated from what the
    draws say (Raj, 1956), about which nothing is certain for few samples.

    Args:
        population:
            The samples.
        scores:
            The normalized scores of each candidate, of the same samples.
    """
    best = max(scores, key=lambda name: estimate(population, scores[name]))
    found = []
    for name, one in scores.items():
        differences = one - scores[best]
        before = np.cumsum(differences) - differences
        says = before + differences / population.order.probabilities[: len(one)]
        error = float(says.std()) / math.sqrt(max(1, len(one) - 1))
        if float(says.mean()) + _CLEAR_ERRORS * error < 0:
            found.append(name)
    return found


def standing(ranks: Sequence[Rank]) -> list[float]:
    """One number for each candidate: higher for one that got further.

    Those of a later round come before those of an earlier one, and in a round the order is that
    of the mean difference. The number is the estimate, but below that of the candidate before.
    """
    order = sorted(range(len(ranks)), key=lambda i: (-ranks[i].round, -ranks[i].difference))
    values = [rank.estimate for rank in ranks]
    for before, i in itertools.pairwise(order):
        is_tie = (ranks[i].round, ranks[i].difference) == (
            ranks[before].round,
            ranks[before].difference,
        )
        most = values[before] if is_tie else math.nextafter(values[before], -math.inf)
        values[i] = most if is_tie else min(values[i], most)
    return values
