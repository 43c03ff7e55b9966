"""Races: the best stay in, and more samples only for those of which it is not clear yet."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels
from optuna_quant.sequential.race import Rank
from optuna_quant.sequential.race import clearly_behind
from optuna_quant.sequential.race import mean_difference
from optuna_quant.sequential.race import order_is_clear
from optuna_quant.sequential.race import regret_bound
from optuna_quant.sequential.race import rounds
from optuna_quant.sequential.race import standing
from optuna_quant.sequential.race import survivors


SIZE = 1000
BASELINE = (np.random.default_rng(0).random(SIZE) < 0.9).astype(float)


def population_of(seed: int = 0, *, weighted: bool = False, size: int = SIZE) -> Population:
    margins = np.arange(size, dtype=float) if weighted else None
    order = SampleOrder.draw(difficulty_levels(margins, size), seed=seed)
    return Population(order=order, baseline=BASELINE[:size], bounds=(0.0, 1.0))


def worse_by(population: Population, rate: float, *, seed: int = 1) -> np.ndarray:
    """The scores of a candidate that is wrong on a part of the samples, in the order."""
    hit = np.random.default_rng(seed).random(population.samples) < rate
    scores = np.where(hit, 0.0, population.baseline)
    return population.normalized(scores[population.order.indices])


@given(st.integers(1, 100_000), st.integers(1, 8), st.floats(0.001, 1))
def test_rounds_go_further_each_time(samples: int, count: int, part: float) -> None:
    ends = rounds(samples, count=count, fraction=part)
    assert 1 <= len(ends) <= count
    assert list(ends) == sorted(set(ends))
    assert ends[0] >= min(32, samples)
    assert ends[-1] <= samples
    assert ends[-1] >= min(samples, part * samples)
    for one, other in itertools.pairwise(ends):
        assert other <= 2 * one


def test_rounds_are_as_many_as_asked_for() -> None:
    assert rounds(10_000, count=4, fraction=0.2) == (250, 500, 1000, 2000)
    assert rounds(100, count=4, fraction=0.2) == (32,)
    assert rounds(20, count=4, fraction=0.2) == (20,)


def test_the_better_half_goes_on() -> None:
    population = population_of()
    scores = {f"{rate}": worse_by(population, rate) for rate in (0.5, 0.0, 0.3, 0.1, 0.7, 0.2)}
    kept = survivors(population, scores, top_k=3, samples=200, error_probability=0.05)
    assert kept == ["0.0", "0.1", "0.2"]  # In the order in which they were given.


def test_who_is_surely_worse_than_the_best_is_out() -> None:
    population = population_of()
    rates = {"good": 0.0, "close": 0.01, "bad": 0.4, "worse": 0.5, "worst": 0.6, "last": 0.7}
    scores = {name: worse_by(population, rate) for name, rate in rates.items()}
    kept = survivors(population, scores, top_k=1, samples=500, error_probability=0.01)
    assert kept == ["good", "close"]


def test_no_more_than_wanted_all_go_on() -> None:
    population = population_of()
    scores = {"a": worse_by(population, 0.0), "b": worse_by(population, 0.9)}
    assert survivors(population, scores, top_k=2, samples=500, error_probability=0.05) == [
        "a",
        "b",
    ]
    assert survivors(population, {}, top_k=1, samples=500, error_probability=0.05) == []


@given(
    st.integers(1, 60),
    st.integers(2, 9),
    st.integers(1, 3),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_equals_are_never_surely_worse(
    size: int, count: int, top: int, weighted: bool, score: float, seed: int
) -> None:
    population = population_of(seed, weighted=weighted, size=size)
    scores = {str(i): np.full(size, score) for i in range(count)}
    for samples in {1, size // 2 + 1, size}:
        kept = survivors(population, scores, top_k=top, samples=samples, error_probability=0.9)
        assert len(kept) == min(count, max(top, (count + 1) // 2))
        assert not order_is_clear(population, scores, samples=samples, error_probability=0.9)
    assert regret_bound(population, scores["0"], [scores["1"]], error_probability=0.9) >= 0


@pytest.mark.parametrize("weighted", [True, False])
def test_as_good_ones_seldom_count_as_worse(weighted: bool) -> None:
    """Two candidates of the same mean that differ on a tenth of the samples."""
    rng, error, races = np.random.default_rng(5), 0.1, 1000
    flips = rng.permutation(SIZE // 2)[:100]
    a, b = BASELINE.copy(), BASELINE.copy()
    a[flips[:50]], b[flips[:50]] = 0.0, 1.0
    a[flips[50:]], b[flips[50:]] = 1.0, 0.0
    wrong = 0
    for seed in range(races):
        population = population_of(seed, weighted=weighted)
        scores = {"a": a[population.order.indices], "b": b[population.order.indices]}
        wrong += order_is_clear(population, scores, samples=600, error_probability=error)
    assert wrong / races <= error + 3 * np.sqrt(error * (1 - error) / races)


def test_later_rounds_ask_for_as_much_as_the_first() -> None:
    population = population_of()
    scores = {"a": worse_by(population, 0.0), "b": worse_by(population, 0.035)}

    def first_clear(count: int) -> int:
        return next(
            samples
            for samples in range(10, SIZE, 10)
            if order_is_clear(
                population, scores, samples=samples, error_probability=0.01, count=count
            )
        )

    assert first_clear(0) == first_clear(2) < first_clear(200)
    close = {**scores, "c": worse_by(population, 0.5)}  # "b" is in the better half.
    samples = first_clear(3)
    for count, kept in ((0, ["a"]), (200, ["a", "b"])):
        found = survivors(
            population, close, top_k=1, samples=samples, error_probability=0.01, count=count
        )
        assert found == kept


def test_the_order_is_clear_once_all_pairs_are() -> None:
    population = population_of()
    scores = {name: worse_by(population, r) for name, r in (("b", 0.3), ("a", 0.0), ("c", 0.8))}
    assert order_is_clear(population, scores, samples=600, error_probability=0.01)
    scores["d"] = scores["c"]
    assert not order_is_clear(population, scores, samples=600, error_probability=0.01)
    assert not order_is_clear(population, scores, samples=5, error_probability=0.01)


def test_one_candidate_is_in_a_clear_order() -> None:
    population = population_of()
    scores = {"a": worse_by(population, 0.0)}
    assert order_is_clear(population, scores, samples=5, error_probability=0.01)


@pytest.mark.parametrize("weighted", [True, False])
def test_no_more_is_missed_than_stated(weighted: bool) -> None:
    wrong, races, error = 0, 60, 0.1
    for seed in range(races):
        population = population_of(seed, weighted=weighted)
        others = [worse_by(population, 0.1, seed=i)[:300] for i in range(5)]
        full = [float(worse_by(population, 0.1, seed=i).mean()) for i in range(5)]
        best = max(range(5), key=lambda i: others[i].mean())
        rest = [others[i] for i in range(5) if i != best]
        missed = regret_bound(population, others[best], rest, error_probability=error)
        wrong += max(full) - full[best] > missed + 1e-9
        assert 0 <= missed <= 1
    assert wrong / races <= error + 3 * np.sqrt(error * (1 - error) / races)


def test_nothing_is_missed_by_who_is_surely_the_best() -> None:
    population = population_of()
    chosen, other = worse_by(population, 0.0), worse_by(population, 0.6)
    assert regret_bound(population, chosen, [other[:500]], error_probability=0.01) == 0
    assert regret_bound(population, chosen, [], error_probability=0.01) == 0


def test_of_who_was_not_seen_all_is_possible() -> None:
    population = population_of()
    chosen = worse_by(population, 0.0)
    missed = regret_bound(population, chosen, [np.empty(0)], error_probability=0.01)
    assert missed == pytest.approx(1, abs=1e-3)


@given(
    st.lists(
        st.builds(Rank, st.integers(0, 4), st.floats(-1, 1), st.floats(0, 1)),
        min_size=1,
        max_size=20,
    )
)
def test_who_came_further_stands_higher(ranks: list[Rank]) -> None:
    values = standing(ranks)
    assert len(values) == len(ranks)
    for one, value in zip(ranks, values, strict=True):
        for other, others in zip(ranks, values, strict=True):
            if (one.round, one.difference) > (other.round, other.difference):
                assert value > others
            elif (one.round, one.difference) == (other.round, other.difference):
                assert value == others


def test_standing_is_the_estimate_unless_who_came_further_has_less() -> None:
    ranks = [Rank(0, 0.0, 0.9), Rank(2, -0.1, 0.8), Rank(1, 0.2, 0.7), Rank(2, 0.1, 0.85)]
    below = math.nextafter(0.7, -math.inf)
    assert standing(ranks) == [below, 0.8, 0.7, 0.85]


def test_the_lead_is_on_the_samples_that_were_seen() -> None:
    population = population_of()
    scores = population.normalized_baseline[:50].copy()
    assert mean_difference(population, scores) == 0
    scores[:5] = 1 - scores[:5]
    expected = (scores - population.normalized_baseline[:50]).sum() / 50
    assert mean_difference(population, scores) == pytest.approx(expected)


def test_who_leads_on_hard_samples_only_is_clearly_behind() -> None:
    population = population_of(weighted=True)
    order = population.order
    baseline = population.normalized_baseline
    by_weight = np.argsort(-order.weights, kind="stable")
    right = by_weight[baseline[by_weight] == 1]
    few_hard, many_easy = baseline.copy(), baseline.copy()
    few_hard[right[:20]] = 0
    many_easy[right[len(right) // 2 :]] = 0
    seen = {"few hard": few_hard[:400], "many easy": many_easy[:400]}
    assert clearly_behind(population, seen) == ["many easy"]
    assert clearly_behind(population, {"one": few_hard[:50], "same": few_hard[:50]}) == []
