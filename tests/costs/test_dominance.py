"""Fronts and hypervolumes against their definitions, and the expected gain against draws."""

from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.costs.dominance import Staircase
from optuna_quant.costs.dominance import hypervolume
from optuna_quant.costs.dominance import non_dominated


REFERENCE = (6.0, 6.0)
POINTS = st.lists(
    st.tuples(st.integers(0, 7).map(float), st.integers(0, 7).map(float)), max_size=9
)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@given(POINTS)
def test_front_is_what_no_point_beats(points):
    found = non_dominated(points)
    expected = [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]
    assert sorted(found) == expected
    assert [points[i] for i in found] == sorted(points[i] for i in expected)


def test_what_has_no_value_is_on_no_front():
    assert non_dominated([(float("nan"), 0.0), (1.0, float("nan")), (2.0, 2.0)]) == [2]
    assert non_dominated([]) == []


@given(POINTS)
def test_hypervolume_is_the_number_of_cells_that_are_beaten(points):
    cells = [(x, y) for x in range(6) for y in range(6)]
    beaten = sum(any(p[0] <= x and p[1] <= y for p in points) for x, y in cells)
    assert hypervolume(points, REFERENCE) == beaten


@given(POINTS, st.floats(0, 7), st.floats(-1, 7))
def test_gain_is_the_difference_of_hypervolumes(points, cost, loss):
    found = Staircase.of(points, REFERENCE).gain(cost, loss)
    larger = hypervolume([*points, (cost, loss)], REFERENCE)
    assert found == pytest.approx(larger - hypervolume(points, REFERENCE), abs=1e-9)


@settings(max_examples=examples(30), deadline=None)
@given(POINTS, st.floats(0, 7), st.floats(0.3, 6), st.floats(0.05, 1.0))
def test_expected_gain_is_the_mean_of_gains(points, cost, median, deviation):
    stairs = Staircase.of(points, REFERENCE)
    quantiles = (np.arange(4000) + 0.5) / 4000
    from scipy.stats import norm

    losses = median * np.exp(deviation * norm.ppf(quantiles))
    expected = np.mean([stairs.gain(cost, loss) for loss in losses])
    assert stairs.expected_gain(cost, median, deviation) == pytest.approx(expected, abs=0.01)


def test_a_loss_that_is_known_is_no_expectation():
    stairs = Staircase.of([(1.0, 3.0), (4.0, 1.0)], REFERENCE)
    assert stairs.expected_gain(2.0, 2.0, 0.0) == stairs.gain(2.0, 2.0) == 2.0
    assert stairs.expected_gain(2.0, 0.0, 0.5) == stairs.gain(2.0, 0.0)
