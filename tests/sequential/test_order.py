"""The order of samples: a random one, by probabilities that are known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels


LEVELS = st.lists(st.integers(0, 255), min_size=1, max_size=80).map(
    lambda levels: np.array(levels, dtype=np.uint8)
)


@given(LEVELS, st.integers(0, 2**32 - 1))
def test_an_order_is_a_permutation_that_the_seed_determines(levels: np.ndarray, seed: int) -> None:
    order, again = SampleOrder.draw(levels, seed=seed), SampleOrder.draw(levels, seed=seed)
    assert sorted(order.indices.tolist()) == list(range(len(levels)))
    assert order.samples == len(levels)
    np.testing.assert_array_equal(order.indices, again.indices)
    assert order.digest == again.digest


def test_other_seeds_give_other_orders() -> None:
    levels = np.zeros(100, dtype=np.uint8)
    digests = {SampleOrder.draw(levels, seed=seed).digest for seed in range(50)}
    assert len(digests) == 50


@given(LEVELS, st.integers(0, 100))
def test_the_probabilities_of_what_is_left_sum_to_one(levels: np.ndarray, seed: int) -> None:
    order = SampleOrder.draw(levels, seed=seed)
    for draw in range(order.samples):
        left = order.weights[draw:].sum()
        assert order.weight_left[draw] == pytest.approx(left)
        assert (order.weights[draw:] / order.weight_left[draw]).sum() == pytest.approx(1)
        assert order.probabilities[draw] == pytest.approx(order.weights[draw] / left)
    assert order.probabilities[-1] == 1
    assert (order.probabilities > 0).all()


@given(st.integers(1, 200), st.integers(0, 100))
def test_samples_that_are_alike_are_equally_likely(samples: int, seed: int) -> None:
    order = SampleOrder.draw(difficulty_levels(None, samples), seed=seed)
    np.testing.assert_allclose(order.probabilities, 1 / np.arange(samples, 0, -1))


@given(LEVELS, st.integers(0, 100))
def test_a_harder_sample_is_never_less_likely(levels: np.ndarray, seed: int) -> None:
    order = SampleOrder.draw(levels, seed=seed)
    by_level = order.weights[np.argsort(levels[order.indices], kind="stable")]
    assert (np.diff(by_level) <= 0).all()


def test_samples_are_drawn_as_often_as_their_probabilities_say() -> None:
    levels = np.array([0, 10, 40, 200], dtype=np.uint8)
    seeds = 4000
    orders = [SampleOrder.draw(levels, seed=seed) for seed in range(seeds)]
    weights = np.empty(4)
    weights[orders[0].indices] = orders[0].weights
    first = np.bincount([o.indices[0] for o in orders], minlength=4) / seeds
    likely = weights / weights.sum()
    assert (np.abs(first - likely) < 4 * np.sqrt(likely * (1 - likely) / seeds) + 1e-3).all()
    # The second draw, given that the hardest was the first.
    second = np.bincount([o.indices[1] for o in orders if o.indices[0] == 0], minlength=4)[1:]
    likely = weights[1:] / weights[1:].sum()
    error = np.sqrt(likely * (1 - likely) / second.sum())
    assert (np.abs(second / second.sum() - likely) < 4 * error + 1e-3).all()


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_data_made_with_the_same_seed_are_not_in_a_special_order(seed: int) -> None:
    made = np.random.default_rng(seed).random(2000)
    order = SampleOrder.draw(difficulty_levels(None, 2000), seed=seed)
    seen = made[order.indices]
    assert abs(np.corrcoef(seen, np.arange(2000))[0, 1]) < 0.1


def test_levels_are_the_ranks_of_the_margins() -> None:
    margins = np.random.default_rng(0).standard_normal(1000)
    levels = difficulty_levels(margins, 1000)
    assert levels.dtype == np.uint8
    assert (levels.min(), levels.max()) == (0, 255)
    assert (np.diff(levels[np.argsort(margins)].astype(int)) >= 0).all()
    assert np.bincount(levels).max() <= 4  # All about as many.
    np.testing.assert_array_equal(difficulty_levels(np.exp(margins), 1000), levels)


def test_without_margins_all_samples_are_alike() -> None:
    assert (difficulty_levels(None, 7) == np.zeros(7)).all()


@pytest.mark.parametrize("margins", [[0.3], [np.inf, 1.0], [np.nan, 1.0, 0.5]])
def test_few_and_odd_margins_have_levels(margins: list[float]) -> None:
    levels = difficulty_levels(np.array(margins), len(margins))
    assert len(levels) == len(margins)
    assert levels[0] == levels.max()  # What is infinite or no number counts as easy.
