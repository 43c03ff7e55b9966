"""The test of a threshold: certain where it says so, and seldom wrong elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
import math

from effort import examples
from hypothesis import assume
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.sequential import Decision
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import WeightedThresholdTest
from optuna_quant.sequential import difficulty_levels
from optuna_quant.sequential.methods import METHODS
from optuna_quant.sequential.weighted_threshold import bounds
from optuna_quant.sequential.weighted_threshold import estimate
from optuna_quant.sequential.weighted_threshold import follow


CERTAIN_ERROR = 1e-8
"""Means that are so near to the threshold may be judged either way."""


def population_of(
    baseline: np.ndarray, *, levels: np.ndarray | None = None, seed: int = 0, **kwargs: object
) -> Population:
    given_levels = np.zeros(len(baseline), dtype=np.uint8) if levels is None else levels
    order = SampleOrder.draw(given_levels, seed=seed)
    return Population(order=order, baseline=baseline, **{"bounds": (0.0, 1.0), **kwargs})  # type: ignore[arg-type]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Population, np.ndarray]:
    """A population, and the scores of a candidate in the order of evaluation, also unlikely."""
    size = draw(st.integers(1, 50))
    score = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 1)]))
    scores = st.lists(score, min_size=size, max_size=size).map(np.array)
    levels = np.array(draw(st.lists(st.integers(0, 255), min_size=size, max_size=size)))
    population = population_of(
        draw(scores),
        levels=levels.astype(np.uint8),
        seed=draw(st.integers(0, 5)),
        method=draw(st.sampled_from(METHODS)),
        error_probability=draw(st.sampled_from([0.001, 0.05, 0.3])),
    )
    return population, draw(scores)


THRESHOLDS = st.floats(-0.2, 1.2)


@given(problems(), THRESHOLDS, st.integers(1, 20))
def test_what_is_exact_is_the_truth(
    problem: tuple[Population, np.ndarray], threshold: float, batch: int
) -> None:
    population, scores = problem
    assume(abs(scores.mean() - threshold) > CERTAIN_ERROR)
    test = WeightedThresholdTest(population, threshold)
    for start in range(0, len(scores), batch):
        decision = test.update(scores[start : start + batch])
        assert decision is test.decision
        if test.is_exact:
            assert decision is (Decision.MEETS if scores.mean() > threshold else Decision.FAILS)
        else:
            assert decision is not Decision.MEETS
    if population.method == "exact":
        assert test.is_exact
        assert test.seen == len(scores) or test.decision is Decision.FAILS


@given(problems(), THRESHOLDS)
def test_all_samples_at_once_tell_the_truth(
    problem: tuple[Population, np.ndarray], threshold: float
) -> None:
    population, scores = problem
    assume(abs(scores.mean() - threshold) > CERTAIN_ERROR)
    test = follow(population, threshold, scores)
    assert test.decision is (Decision.MEETS if scores.mean() > threshold else Decision.FAILS)
    assert test.is_exact


@given(problems(), THRESHOLDS, st.lists(st.integers(1, 20), min_size=1, max_size=50))
def test_the_size_of_batches_does_not_matter(
    problem: tuple[Population, np.ndarray], threshold: float, sizes: list[int]
) -> None:
    population, scores = problem
    in_parts, start = WeightedThresholdTest(population, threshold), 0
    for size in sizes:
        in_parts.update(scores[start : start + size])
        start += size
    at_once = follow(population, threshold, scores[:start])
    if in_parts.decision is Decision.FAILS and not in_parts.is_exact:
        # Or the samples since it was given up have made certain what it is.
        assert at_once.decision is Decision.FAILS or at_once.is_exact
    else:
        assert at_once.decision is in_parts.decision
        assert at_once.is_exact == in_parts.is_exact


@pytest.mark.parametrize("batch", [1, 7, 32, 300])
def test_a_candidate_that_failed_in_between_has_failed(batch: int) -> None:
    population = population_of(np.ones(1000), method="unpaired")
    scores = np.concatenate([np.zeros(20), np.ones(980)])
    test = WeightedThresholdTest(population, 0.9)
    for start in range(0, 300, batch):
        test.update(scores[start : min(300, start + batch)])
    assert test.decision is Decision.FAILS
    assert not test.is_exact
    # What came after would not have been enough to give it up.
    assert follow(
        population, 0.9, np.random.default_rng(0).permutation(scores)[:300]
    ).decision in (
        Decision.OPEN,
        Decision.PROVISIONALLY_MET,
    )


@given(problems(), THRESHOLDS, THRESHOLDS, st.integers(0, 50))
def test_who_fails_a_threshold_fails_a_higher_one(
    problem: tuple[Population, np.ndarray], one: float, other: float, seen: int
) -> None:
    population, scores = problem
    low, high = sorted((one, other))
    if follow(population, low, scores[:seen]).decision is Decision.FAILS:
        assert follow(population, high, scores[:seen]).decision is Decision.FAILS
    if follow(population, high, scores[:seen]).decision is Decision.MEETS:
        assert follow(population, low, scores[:seen]).decision is Decision.MEETS


@given(
    problems(),
    st.floats(0.05, 0.95),
    st.booleans(),
    st.sampled_from([(0.0, 4.0), (-1.0, 1.0), (100.0, 228.0)]),
)
def test_the_scale_does_not_matter(
    problem: tuple[Population, np.ndarray],
    threshold: float,
    higher_is_better: bool,
    scale: tuple[float, float],
) -> None:
    population, scores = problem
    assume(abs(scores.mean() - threshold) > CERTAIN_ERROR)
    low, high = scale

    def scaled(normal: np.ndarray) -> np.ndarray:
        part = normal if higher_is_better else 1 - normal
        return np.clip(low + part * (high - low), low, high)

    other = Population(
        order=population.order,
        baseline=scaled(population.baseline),
        bounds=scale,
        higher_is_better=higher_is_better,
        method=population.method,
        error_probability=population.error_probability,
    )
    metric = population_metric = float(scaled(np.array(threshold)))
    assert other.metric(other.normalized_mean(metric)) == pytest.approx(population_metric)
    a = WeightedThresholdTest(population, threshold)
    b = WeightedThresholdTest(other, other.normalized_mean(metric))
    in_order = scaled(scores)
    for start in range(0, len(scores), 7):
        a.update(scores[start : start + 7])
        b.update(other.normalized(in_order[start : start + 7]))
        given_up = {Decision.FAILS} & {a.decision, b.decision}
        assert not given_up or a.decision is b.decision
    assert a.is_exact == b.is_exact
    seen = len(scores) // 2
    for x, y in zip(
        bounds(population, scores[:seen]),
        bounds(other, other.normalized(in_order[:seen])),
        strict=True,
    ):
        assert x == pytest.approx(y, abs=1e-3)


@given(
    st.integers(1, 300),
    st.floats(0, 1),
    st.sampled_from([(0.0, 1.0), (0.0, 4.0), (-3.0, 0.1)]),
    st.booleans(),
    st.sampled_from(METHODS),
    st.sampled_from([1, 32, 300]),
)
def test_who_is_exactly_at_the_threshold_meets_it(
    size: int,
    part: float,
    scale: tuple[float, float],
    higher_is_better: bool,
    method: str,
    batch: int,
) -> None:
    score = scale[0] + part * (scale[1] - scale[0])
    scores = np.full(size, min(score, scale[1]))
    population = population_of(
        scores, bounds=scale, higher_is_better=higher_is_better, method=method
    )
    test = WeightedThresholdTest(population, population.normalized_mean(float(scores.mean())))
    for start in range(0, size, batch):
        assert (
            test.update(population.normalized(scores[start : start + batch])) is not Decision.FAILS
        )
    assert test.decision is Decision.MEETS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_the_baseline_itself_meets_its_mean(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.float32(rng.random(20_000))
    levels = rng.integers(0, 256, 20_000).astype(np.uint8)
    population = population_of(scores, levels=levels, seed=seed, method=method)
    test = WeightedThresholdTest(population, float(scores.mean(dtype=np.float64)))
    in_order = scores[population.order.indices]
    for start in range(0, len(scores), 1024):
        # As float32 their sum would be off.
        assert test.update(in_order[start : start + 1024]) is not Decision.FAILS
    assert test.decision is Decision.MEETS
    assert population.normalized(in_order).dtype == np.float64


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "score, threshold, decision",
    [
        (1.0, 0.5, Decision.MEETS),
        (0.0, 0.5, Decision.FAILS),
        (0.5, 0.5, Decision.MEETS),
        (0.0, 0.0, Decision.MEETS),
        (1.0, 1.0, Decision.MEETS),
        (1.0, 1.1, Decision.FAILS),
        (0.0, -0.1, Decision.MEETS),
    ],
)
def test_one_sample_decides_if_it_is_the_only_one(
    method: str, score: float, threshold: float, decision: Decision
) -> None:
    population = population_of(np.ones(1), method=method)
    test = follow(population, threshold, np.array([score]))
    assert (test.decision, test.is_exact, test.seen) == (decision, True, 1)


@pytest.mark.parametrize("method", METHODS)
def test_no_samples_say_nothing(method: str) -> None:
    population = population_of(np.ones(40), method=method)
    test = WeightedThresholdTest(population, 0.5)
    assert test.update(np.empty(0)) is Decision.OPEN
    assert (test.seen, test.is_exact) == (0, False)
    assert bounds(population, np.empty(0)) == (0.0, 1.0)


def test_an_impossible_threshold_fails_with_the_first_sample() -> None:
    population = population_of(np.ones(40), method="exact")
    test = follow(population, 1.01, np.ones(1))
    assert (test.decision, test.is_exact) == (Decision.FAILS, True)


# All orders of a small population, each with its probability: what is promised, exactly.


def _small(
    scores: list[float], baseline: list[float], weights: list[float], **kwargs: object
) -> Iterator[tuple[float, Population, np.ndarray]]:
    """Each order's probability, the population in it and the candidate's scores in it."""
    of_candidate, of_baseline = np.array(scores), np.array(baseline)
    for permutation in itertools.permutations(range(len(scores))):
        indices = np.array(permutation)
        order = SampleOrder(indices, np.array(weights)[indices])
        population = Population(order=order, baseline=of_baseline, bounds=(0, 1), **kwargs)  # type: ignore[arg-type]
        yield math.prod(order.probabilities.tolist()), population, of_candidate[indices]


WEIGHTS = [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [40.0, 10.0, 3.0, 3.0, 1.0, 1.0]]
SCORES = [
    ([0, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1]),
    ([0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]),
    ([1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1]),
    ([0.2, 0.9, 0.4, 0.4, 0.7, 0.1], [0.3, 0.9, 0.5, 0.9, 0.6, 0.2]),
]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("scores, baseline", SCORES)
def test_the_estimate_is_right_on_average(
    weights: list[float], scores: list[float], baseline: list[float]
) -> None:
    means, total = dict.fromkeys([1, 2, 4, 5, 6], 0.0), 0.0
    for probability, population, in_order in _small(scores, baseline, weights):
        for seen in means:
            means[seen] += probability * estimate(population, in_order[:seen])
        total += probability
    assert total == pytest.approx(1)
    assert means == pytest.approx(dict.fromkeys(means, np.mean(scores)))


@pytest.mark.parametrize("method", ["paired", "unpaired"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "scores, baseline, error",
    [
        *((*scores, 0.6) for scores in SCORES),
        # With the lower probability hardly anything fails, whatever the scores.
        (*SCORES[2], 0.2),
        *(
            pytest.param(*scores, 0.2, marks=pytest.mark.slow)
            for scores in SCORES
            if scores is not SCORES[2]
        ),
    ],
)
def test_errors_are_as_rare_as_promised_over_all_orders(
    method: str, weights: list[float], scores: list[float], baseline: list[float], error: float
) -> None:
    failed = 0.0
    for probability, population, in_order in _small(
        scores, baseline, weights, method=method, error_probability=error
    ):
        # All but the last sample: the test looks after each of them.
        test = follow(population, float(np.mean(scores)), in_order[:-1])
        failed += probability * (test.decision is Decision.FAILS)
    assert failed <= error


@pytest.mark.parametrize("method", ["paired", "unpaired"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("scores, baseline", SCORES[1:3])
def test_bounds_are_as_seldom_wrong_as_promised_over_all_orders(
    method: str, weights: list[float], scores: list[float], baseline: list[float]
) -> None:
    below = above = 0.0
    mean = float(np.mean(scores[:5]))
    for probability, population, in_order in _small(
        scores[:5], baseline[:5], weights[:5], method=method, error_probability=0.4
    ):
        found = [bounds(population, in_order[:seen]) for seen in (2, 4)]
        below += probability * (max(low for low, _ in found) > mean + 1e-9)
        above += probability * (min(high for _, high in found) < mean - 1e-9)
    assert below <= 0.4
    assert above <= 0.4


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("method", ["paired", "unpaired"])
def test_errors_are_as_rare_as_promised(weighted: bool, method: str) -> None:
    rng, size, orders, error = np.random.default_rng(3), 200, 1000, 0.05
    part = (np.arange(size) + 0.5) / size
    baseline = (rng.random(size) > 0.3 * (1 - part)).astype(float)
    flips = rng.random(size) < 0.03 / (part + 0.05)
    candidate = np.where(flips, 1 - baseline, baseline)
    levels = difficulty_levels(part if weighted else None, size)
    failed = 0
    for seed in range(orders):
        population = population_of(
            baseline, levels=levels, seed=seed, method=method, error_probability=error
        )
        in_order = candidate[population.order.indices]
        test = follow(population, float(candidate.mean()), in_order[:-1])
        failed += test.decision is Decision.FAILS
    assert failed / orders <= error + 3 * math.sqrt(error * (1 - error) / orders)
    assert failed > 0  # Or the test would be too careful to be of use.


@given(problems(), st.integers(0, 50))
@settings(max_examples=examples(50))
def test_bounds_are_within_what_is_possible(
    problem: tuple[Population, np.ndarray], seen: int
) -> None:
    population, scores = problem
    size, some = len(scores), scores[:seen]
    low, high = bounds(population, some)
    left = size - len(some)
    assert low <= high
    assert low >= some.sum() / size - 1e-9 or high < some.sum() / size + 1e-9
    assert high <= (some.sum() + left) / size + 1e-9
    if population.method == "exact":
        assert low == pytest.approx(some.sum() / size)
        assert high == pytest.approx((some.sum() + left) / size)
    if not left:
        assert low == pytest.approx(scores.mean())
        assert high == pytest.approx(scores.mean())
    if left and len(some):
        assert follow(population, high + 1e-6, some).decision is Decision.FAILS


@pytest.mark.parametrize("method, most", [("paired", 600), ("unpaired", 1500), ("exact", 4000)])
def test_a_bad_candidate_is_given_up_early(method: str, most: int) -> None:
    rng = np.random.default_rng(0)
    baseline = (rng.random(4000) < 0.9).astype(float)
    candidate = np.where(rng.random(4000) < 0.1, 0.0, baseline)
    population = population_of(baseline, method=method)
    test = WeightedThresholdTest(population, float(baseline.mean()) - 0.01)
    in_order = candidate[population.order.indices]
    for start in range(0, 4000, 32):
        if test.update(in_order[start : start + 32]) is Decision.FAILS:
            break
    assert test.decision is Decision.FAILS
    assert test.seen < most
    assert test.is_exact == (method == "exact")


def test_who_has_failed_stays_so() -> None:
    population = population_of(np.ones(1000))
    test = follow(population, 0.9, np.zeros(100))
    assert test.decision is Decision.FAILS
    assert test.update(np.ones(900)) is Decision.FAILS


@pytest.mark.parametrize("size, first", [(40, 40), (640, 64), (6400, 400)])
def test_a_promise_needs_enough_samples(size: int, first: int) -> None:
    population = population_of(np.ones(size))
    test = WeightedThresholdTest(population, 0.5)
    decisions = [test.update(np.ones(1)) for _ in range(min(first, size // 2))]
    assert Decision.PROVISIONALLY_MET not in decisions[: first - 1]
    if first < size // 2:
        assert decisions[first - 1] is Decision.PROVISIONALLY_MET


def test_a_broken_promise_makes_cautious() -> None:
    population = population_of(np.ones(2000))
    for broken_promises, first in [(0, 125), (1, 250), (2, 500), (9, 1000)]:
        test = WeightedThresholdTest(population, 0.5, broken_promises=broken_promises)
        decisions = [test.update(np.ones(1)) for _ in range(2000)]
        kept = [v in (Decision.PROVISIONALLY_MET, Decision.MEETS) for v in decisions]
        assert kept.index(True) == first - 1
    assert decisions[-1] is Decision.MEETS


def test_a_candidate_below_the_threshold_is_not_promised() -> None:
    rng = np.random.default_rng(1)
    baseline = (rng.random(2000) < 0.9).astype(float)
    candidate = np.where(rng.random(2000) < 0.05, 0.0, baseline)
    promised = 0
    for seed in range(50):
        population = population_of(baseline, seed=seed)
        test = WeightedThresholdTest(population, float(baseline.mean()) - 0.02)
        in_order = candidate[population.order.indices]
        decisions = [test.update(in_order[i : i + 32]) for i in range(0, 2000, 32)]
        promised += Decision.PROVISIONALLY_MET in decisions
    assert promised <= 10


@given(problems())
def test_the_estimate_of_the_baseline_is_its_mean(problem: tuple[Population, np.ndarray]) -> None:
    population, _ = problem
    for seen in range(1, population.samples + 1):
        found = estimate(population, population.normalized_baseline[:seen])
        assert found == pytest.approx(population.baseline.mean())
