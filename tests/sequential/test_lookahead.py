"""Looking ahead saves looks at the bets, and changes nothing that they say."""

from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import WeightedThresholdTest
from optuna_quant.sequential import difficulty_levels
from optuna_quant.sequential.methods import METHODS


def population_of(
    baseline: np.ndarray, *, weighted: bool = True, error: float = 0.001, method: str = "paired"
) -> Population:
    size = len(baseline)
    levels = difficulty_levels(np.arange(size, dtype=float) if weighted else None, size)
    return Population(
        order=SampleOrder.draw(levels, seed=0),
        baseline=baseline,
        bounds=(0.0, 1.0),
        error_probability=error,
        method=method,
    )


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Population, np.ndarray]:
    """A population, and normalized scores that differ from the baseline's here and there."""
    size = draw(st.integers(2, 600))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_binary = draw(st.booleans())
    right = draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    baseline = (rng.random(size) < right).astype(float) if is_binary else rng.random(size)
    population = population_of(
        baseline,
        weighted=draw(st.booleans()),
        error=draw(st.sampled_from([1e-6, 0.001, 0.05, 0.5])),
        method=draw(st.sampled_from(METHODS)),
    )
    scores = population.normalized_baseline.copy()
    # Some differ from the start, some from later on.
    begin = draw(st.integers(0, size - 1))
    rate = draw(st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0]))
    others = np.flatnonzero((rng.random(size) < rate) & (np.arange(size) >= begin))
    scores[others] = 1 - scores[others] if is_binary else rng.random(len(others))
    worse = draw(st.booleans())
    if worse:
        scores = np.minimum(scores, population.normalized_baseline)
    return population, scores


def differences(population: Population, scores: np.ndarray, start: int) -> list[tuple[int, float]]:
    gains = scores - population.normalized_baseline[start : start + len(scores)]
    return [(int(i), float(gains[i])) for i in np.flatnonzero(gains)]


@settings(max_examples=examples(400))
@given(
    candidates(),
    st.floats(-0.3, 0.6),
    st.lists(st.integers(0, 90), min_size=1).filter(any),
    st.integers(1, 3),
)
def test_looking_ahead_changes_nothing(
    candidate: tuple[Population, np.ndarray], loss: float, sizes: list[int], every: int
) -> None:
    population, scores = candidate
    threshold = float(population.normalized_baseline.mean()) - loss
    plain = WeightedThresholdTest(population, threshold)
    tests = [
        plain,
        WeightedThresholdTest(population, threshold),
        WeightedThresholdTest(population, threshold),
    ]
    start, turn = 0, 0
    while start < len(scores):
        batch = scores[start : start + sizes[turn % len(sizes)]]
        tests[0].update(batch)
        tests[1].agree(len(batch), differences(population, batch, start))
        if turn % (every + 1):
            tests[2].update(batch)
        else:
            tests[2].agree(len(batch), differences(population, batch, start))
        start, turn = start + len(batch), turn + 1
        for test in tests[1:]:
            assert test.seen == start
            assert test.decision is plain.decision
            assert test.is_exact == plain.is_exact
            assert test.fails == plain.fails
            assert test.estimate == pytest.approx(plain.estimate, abs=1e-9)
    assert plain.estimate == pytest.approx(scores.mean())


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    look = WeightedThresholdTest._look

    def counted(self: WeightedThresholdTest, end: int, last: np.ndarray | None = None) -> None:
        found.append(end)
        look(self, end, last)

    monkeypatch.setattr(WeightedThresholdTest, "_look", counted)
    return found


def follow_in_batches(population: Population, scores: np.ndarray) -> WeightedThresholdTest:
    test = WeightedThresholdTest(population, float(population.normalized_baseline.mean()) - 0.01)
    for start in range(0, len(scores), 32):
        batch = scores[start : start + 32]
        test.agree(len(batch), differences(population, batch, start))
        if test.fails:
            break
    return test


def usual(size: int) -> Population:
    rng = np.random.default_rng(0)
    part = (np.arange(size) + 0.5) / size
    return population_of((rng.random(size) > 0.05 * (1 - part)).astype(float))


def test_the_bets_are_not_looked_at_while_the_candidate_agrees(looks: list[int]) -> None:
    population = usual(1000)
    assert not follow_in_batches(population, population.normalized_baseline).fails
    assert looks == []


def test_the_bets_are_looked_at_seldom_while_it_nearly_agrees(looks: list[int]) -> None:
    population = usual(10_000)
    scores = population.normalized_baseline.copy()
    scores[np.random.default_rng(1).choice(10_000, 60, replace=False)] = 0.0
    assert not follow_in_batches(population, scores).fails
    assert len(looks) <= 10_000 / 32 / 20


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_it_is_found_out_as_soon_as_without(rate: float) -> None:
    population = usual(5000)
    rng = np.random.default_rng(2)
    scores = np.where(rng.random(5000) < rate, 0.0, population.normalized_baseline)
    found = follow_in_batches(population, scores)
    plain = WeightedThresholdTest(population, float(population.normalized_baseline.mean()) - 0.01)
    while not plain.fails:
        plain.update(scores[plain.seen : plain.seen + 32])
    assert found.fails
    assert not found.is_exact
    assert found.seen == plain.seen < 2000


def test_batches_may_become_larger() -> None:
    order = population_of(np.ones(32), weighted=False).order
    baseline = np.ones(32)
    baseline[order.indices[[3, 9, 20, 29]]] = 0.0
    population = population_of(baseline, weighted=False, error=0.05)
    scores = np.zeros(32)
    scores[3] = 1.0
    threshold = float(baseline.mean()) - 0.125
    plain, found = (
        WeightedThresholdTest(population, threshold),
        WeightedThresholdTest(population, threshold),
    )
    for start, end in ((0, 1), (1, 3), (3, 4), (4, 6)):
        plain.update(scores[start:end])
        found.agree(end - start, differences(population, scores[start:end], start))
        assert found.decision is plain.decision
    assert plain.fails


def test_what_lies_ahead_is_found_once_for_all_candidates() -> None:
    population = usual(1000)
    for _ in range(3):
        follow_in_batches(population, population.normalized_baseline)
    assert len(population.lookaheads) == 1


def test_what_lies_ahead_is_of_one_threshold() -> None:
    population = usual(1000)
    scores = population.normalized_baseline
    for threshold, fails in ((0.5, False), (0.999, True), (0.5, False)):
        test = WeightedThresholdTest(population, threshold)
        while test.seen < 999 and not test.fails:
            test.update(scores[test.seen : min(999, test.seen + 32)])
        assert test.fails is fails
