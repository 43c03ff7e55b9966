"""The model of the loss: what it expects before and after observations."""

from __future__ import annotations

import itertools
import math

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.samplers._models.loss_model import LossModel
from optuna_quant.samplers._models.loss_model import Prediction
from optuna_quant.samplers._models.loss_residuals import correlations
from optuna_quant.samplers._models.observed_loss import LossScale
from optuna_quant.samplers._models.observed_loss import Observed


SCALE = LossScale(tolerance=0.01, size=0.9, most=0.9)
QUANTIZED, FLOAT = 0, 1


def model_of(*sensitivities: float, scale: LossScale = SCALE) -> LossModel:
    """Ops with one quantized option and one in floats."""
    return LossModel(np.array([[value, 0.0] for value in sensitivities]), scale)


def options(*quantized: int, ops: int) -> np.ndarray:
    """The options of a configuration that has these ops quantized."""
    found = np.full(ops, FLOAT)
    found[list(quantized)] = QUANTIZED
    return found


# The prior.


def test_before_any_observation_the_size_of_the_metric_gives_the_scale():
    """The outputs' error is the same, so is the loss relative to the metric."""
    chosen = options(0, 1, ops=2)
    one = model_of(0.01, 0.02, scale=LossScale(0.01, 1.0)).predict(chosen)
    hundred = model_of(0.01, 0.02, scale=LossScale(1.0, 100.0)).predict(chosen)
    assert hundred.loss == pytest.approx(100 * one.loss)
    assert hundred.probability(1.0) == pytest.approx(one.probability(0.01))
    # An error of 3% of the variance is no catastrophe and no trifle.
    assert 0.001 < one.loss < 0.1


def test_without_a_size_the_tolerance_gives_the_scale_and_little_is_known():
    chosen = options(0, 1, ops=2)
    known = model_of(0.01, 0.02, scale=LossScale(0.01, 1.0)).predict(chosen)
    unknown = model_of(0.01, 0.02, scale=LossScale(0.01, 0.0)).predict(chosen)
    larger = model_of(0.01, 0.02, scale=LossScale(0.1, 0.0)).predict(chosen)
    assert larger.loss == pytest.approx(10 * unknown.loss)
    assert unknown.deviation > known.deviation


def test_what_adds_nothing_loses_nothing():
    found = model_of(0.01, 0.02).predict(options(ops=2))
    assert (found.loss, found.deviation, found.probability(1e-9)) == (0.0, 0.0, 1.0)


def test_more_ops_and_larger_sensitivities_lose_more():
    model = model_of(0.001, 0.004, 0.02)
    losses = [
        model.predict(options(*quantized, ops=3)).loss
        for quantized in ((0,), (1,), (0, 1), (2,), (0, 2), (0, 1, 2))
    ]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


def test_no_loss_is_above_the_largest_possible_one():
    model = model_of(1e5, 1e6)
    assert model.predict(options(0, 1, ops=2)).loss <= SCALE.most
    assert model_of(1e5, scale=LossScale(0.01, 0.9)).predict(options(0, ops=1)).loss > 1.0


def test_the_probability_falls_with_the_loss_and_rises_with_the_tolerance():
    assert Prediction(0.01, 1.0).probability(0.01) == pytest.approx(0.5)
    tolerances = [0.001, 0.01, 0.1]
    for deviation in (0.1, 1.0, 3.0):
        found = [Prediction(0.02, deviation).probability(t) for t in tolerances]
        assert found == sorted(found)
        assert all(0 <= p <= 1 for p in found)
        smaller = [Prediction(0.01, deviation).probability(t) for t in tolerances]
        assert all(a >= b for a, b in zip(smaller, found, strict=True))


# Observations.


@pytest.mark.parametrize("factor", [0.1, 0.3, 3.0, 10.0])
def test_one_observation_moves_the_scale_of_all(factor):
    """If half of the ops have lost less than expected, so will the others."""
    model = model_of(*[0.002] * 10)
    seen, other = options(*range(5), ops=10), options(*range(5, 10), ops=10)
    before = model.predict(other).loss
    after = model.fitted([Observed(seen, factor * before)]).predict(other).loss
    assert (after < before) == (factor < 1)
    assert abs(math.log(after / before)) > 0.3 * abs(math.log(factor))


def test_what_was_seen_is_expected_again():
    model = model_of(0.001, 0.002, 0.004)
    chosen = options(0, 2, ops=3)
    fitted = model.fitted([Observed(chosen, 0.02)])
    assert fitted.predict(chosen).loss == pytest.approx(0.02, rel=0.1)
    assert fitted.predict(chosen).deviation < 0.3 * model.predict(chosen).deviation


def test_an_observation_with_an_error_is_believed_less():
    model = model_of(0.001, 0.002, 0.004)
    chosen = options(0, 2, ops=3)
    before = model.predict(chosen).loss
    sure = model.fitted([Observed(chosen, 5 * before)]).predict(chosen)
    unsure = model.fitted([Observed(chosen, 5 * before, error=5 * before)]).predict(chosen)
    assert before < unsure.loss < sure.loss
    assert unsure.deviation > sure.deviation


def test_the_op_with_the_larger_sensitivity_is_blamed():
    model = model_of(0.0005, 0.02, 0.0005)
    everything = options(0, 1, 2, ops=3)
    expected = model.predict(everything).loss
    small = model.fitted([Observed(options(0, 2, ops=3), 0.001)])
    bad = small.fitted(
        [Observed(options(0, 2, ops=3), 0.001), Observed(everything, 10 * expected)]
    )
    grown = bad.weights[:, QUANTIZED] / small.weights[:, QUANTIZED]
    assert grown[1] > grown[0]
    assert grown[1] > grown[2]
    assert bad.weights[1, QUANTIZED] > 10 * bad.weights[0, QUANTIZED]


def test_the_op_without_which_it_is_well_is_blamed():
    """Equal sensitivities: what was seen tells one from the others."""
    model = model_of(*[0.01] * 4)
    everything, without = options(0, 1, 2, 3, ops=4), options(0, 1, 3, ops=4)
    fitted = model.fitted([Observed(everything, 0.2), Observed(without, 0.004)])
    weights = fitted.weights[:, QUANTIZED]
    assert np.argmax(weights) == 2
    assert weights[2] > 1.2 * np.delete(weights, 2).max()


def test_the_option_that_lost_is_blamed_more_than_the_other_of_its_op():
    model = LossModel(np.array([[0.01, 0.01, 0.0], [0.001, 0.001, 0.0]]), SCALE)
    before = model.weights
    lost = Observed(np.array([1, 2]), 0.3)
    well = Observed(np.array([0, 0]), 0.003)
    after = model.fitted([lost, well]).weights
    assert after[0, 1] / before[0, 1] > 1.02 * after[0, 0] / before[0, 0]


def test_what_hardly_differs_from_a_failure_is_expected_to_fail():
    """Even where the sum of all others says that a failure cannot be."""
    rng = np.random.default_rng(0)
    model = model_of(*[0.001] * 19, 1e-6)
    failed = options(*range(20), ops=20)
    sets = [rng.choice(19, 15, replace=False) for _ in range(6)]
    others = [Observed(options(*chosen, ops=20), 0.004) for chosen in sets]
    fitted = model.fitted([*others, Observed(failed, 0.05)])
    near = fitted.predict(options(*range(19), ops=20))  # Without what hardly counts.
    far = fitted.predict(options(*sets[0], ops=20))
    assert near.probability(SCALE.tolerance) < 0.1
    assert far.probability(SCALE.tolerance) > 0.3


def test_observations_only_ever_make_surer():
    """Of the sum as a part of itself, on average over what may be asked."""
    rng = np.random.default_rng(1)
    truth = 0.002 * np.exp(rng.normal(0, 0.5, 12))
    model = model_of(*[0.002] * 12)
    asked = [rng.choice(12, 8, replace=False) for _ in range(20)]
    seen: list[Observed] = []
    deviations = []
    for _ in range(6):
        fitted = model.fitted(seen)
        found = [fitted.predict(options(*chosen, ops=12)).deviation for chosen in asked]
        deviations.append(float(np.mean(found)))
        chosen = rng.choice(12, 8, replace=False)
        seen.append(Observed(options(*chosen, ops=12), float(0.4 * truth[chosen].sum())))
    assert deviations[-1] < 0.5 * deviations[0]
    assert all(b < 1.1 * a for a, b in itertools.pairwise(deviations))


def test_it_learns_which_ops_lose_and_is_close_on_others():
    rng = np.random.default_rng(2)
    truth = np.full(30, 0.0003)
    truth[[3, 17]] = 0.03
    model = model_of(*0.1 * truth * np.exp(rng.normal(0, 0.7, 30)))
    seen = []
    for _ in range(12):
        chosen = np.flatnonzero(rng.random(30) < 0.6)
        seen.append(Observed(options(*chosen, ops=30), float(truth[chosen].sum())))
    fitted = model.fitted(seen)
    for hard in ((), (3,), (17,), (3, 17)):
        chosen = [*(i for i in range(0, 30, 2) if i not in (3, 17)), *hard]
        expected = truth[chosen].sum()
        assert fitted.predict(options(*chosen, ops=30)).loss == pytest.approx(expected, rel=0.6)


def test_correlations_are_those_of_a_process():
    """With a kernel that is none, a fit is drawn to where nothing is known."""
    rng = np.random.default_rng(6)
    for ops in (3, 20, 100):
        model = model_of(*10.0 ** rng.uniform(-6, 0, ops))
        seen = [
            Observed(options(*np.flatnonzero(rng.random(ops) < share), ops=ops), 0.1)
            for share in (*rng.random(20), 0.5, 0.7, 0.9)
        ]
        found = correlations(model.weights, seen, seen)
        assert np.linalg.eigvalsh(found)[0] > -1e-9
        assert np.diag(found) == pytest.approx(1.0)


def test_many_observations_of_others_tell_what_is_hard():
    """Forty random configurations, nearly all bad: what is left without the hard ops is well."""
    rng = np.random.default_rng(7)
    truth = np.full(50, 0.0001)
    hard = [4, 20, 33]
    truth[hard] = [0.15, 0.3, 0.3]
    model = model_of(*0.3 * truth * np.exp(rng.normal(0, 1.0, 50)))
    seen = []
    for _ in range(40):
        chosen = np.flatnonzero(rng.random(50) < 0.7)
        seen.append(Observed(options(*chosen, ops=50), float(truth[chosen].sum())))
    fitted = model.fitted(seen)
    rest = [i for i in range(50) if i not in hard]
    assert fitted.predict(options(*rest, ops=50)).probability(0.01) > 0.8
    for op in hard:
        assert fitted.predict(options(*rest, op, ops=50)).probability(0.01) < 0.05


def test_however_large_a_gain_it_says_no_more_than_a_small_one():
    model = model_of(0.001, 0.002)
    chosen = options(0, 1, ops=2)
    large, small = (
        model.fitted([Observed(chosen, loss)]).predict(chosen) for loss in (-0.5, -0.01)
    )
    assert large.loss == small.loss
    assert large.probability(SCALE.tolerance) > 0.9


def test_a_loss_that_was_taken_to_be_a_tenth_is_learned_from():
    chosen, lost = options(0, 1, ops=2), 0.1
    model = model_of(0.001, 0.002)
    assert model.predict(chosen).loss < lost / 10
    fitted = model.fitted([Observed(chosen, lost)])
    # The sum itself, and not only what is off it.
    (expected,) = fitted._sums.summed(fitted._theta, chosen[None, :]).losses
    assert expected > lost / 10


def test_ops_with_options_of_one_kind_are_blamed_together():
    """All ops seem good in their second option, and lose all together there."""
    ops = 10
    sensitivities = np.tile([0.003, 0.0003, 0.0], (ops, 1))
    kinds = np.tile([-1, 0, -1], (ops, 1))
    apart = LossModel(sensitivities, SCALE)
    together = LossModel(sensitivities, SCALE, kinds=kinds)
    half = np.array([1] * 5 + [2] * 5)
    seen = [Observed(np.zeros(ops, dtype=int), 0.012), Observed(half, 0.03)]
    others = np.array([2] * 5 + [1] * 5)
    one, other = (model.fitted(seen).predict(others).loss for model in (apart, together))
    assert other > 1.3 * one


def test_ops_that_share_a_factor_are_blamed_together():
    """One op of two groups has lost more than it was expected to, and one of the third has not."""
    shared = np.array([[0, 0, 1, 1, -1, -1], [2, -1, 2, -1, -1, -1]])
    sensitivities = np.tile([0.003, 0.0], (6, 1))
    seen = [Observed(options(0, ops=6), 0.1), Observed(options(4, ops=6), 0.001)]
    for is_scored in (True, False):
        model = LossModel(sensitivities, SCALE, is_scored, shared=shared)
        found = model.fitted(seen).weights[:, QUANTIZED] / model.weights[:, QUANTIZED]
        assert found[0] > found[1] > 1.1 * found[3]
        assert found[0] > found[2] > 1.1 * found[3]
        assert found[3] == pytest.approx(1.0)
        assert found[4] < found[5] == pytest.approx(1.0)
        apart = LossModel(sensitivities, SCALE, is_scored).fitted(seen)
        assert apart.weights[1:4, QUANTIZED] == pytest.approx(sensitivities[1:4, QUANTIZED])
        # Less is known of what may share a large factor.
        assert (
            model.predict(options(0, ops=6)).deviation
            > LossModel(sensitivities, SCALE, is_scored).predict(options(0, ops=6)).deviation
        )


def test_what_no_op_adds_to_has_nothing_to_say():
    model = model_of(0.001, 0.002)
    assert model.fitted([]) is model
    assert model.fitted([Observed(options(ops=2), 0.5)]) is model


def test_the_same_observations_give_the_same_model():
    rng = np.random.default_rng(3)
    sensitivities = rng.random(40)
    seen = [
        Observed(options(*np.flatnonzero(rng.random(40) < 0.5), ops=40), rng.random() * 0.1)
        for _ in range(8)
    ]
    one, two = (model_of(*sensitivities).fitted(seen) for _ in range(2))
    assert np.array_equal(one.weights, two.weights)
    chosen = options(*range(0, 40, 3), ops=40)
    first, second = one.predict(chosen), two.predict(chosen)
    assert (first.loss, first.deviation) == (second.loss, second.deviation)
    # A fit starts from the prior, not from another fit.
    again = one.fitted(seen[:3]).fitted(seen).predict(chosen)
    assert (again.loss, again.deviation) == (first.loss, first.deviation)


# Whatever it is given.

SENSITIVITIES = st.one_of(
    st.just(0.0), st.floats(-12, 6).map(lambda e: 10.0**e), st.sampled_from([1e-12, 1e6])
)
LOSSES = st.one_of(
    st.floats(-1, 1), st.sampled_from([0.0, -1e9, 1e9, 1e-12]), st.floats(-1e3, 1e3)
)


@st.composite
def situations(draw):
    ops, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    sensitivities = np.zeros((ops, count + 1))
    for i in range(ops):
        sensitivities[i, :count] = draw(st.lists(SENSITIVITIES, min_size=count, max_size=count))
    scale = LossScale(
        draw(st.sampled_from([1e-9, 1e-4, 0.01, 1.0, 100.0])),
        draw(st.sampled_from([0.0, 1e-6, 0.9, 100.0])),
        draw(st.sampled_from([math.inf, 0.9, 100.0])),
    )
    chosen = st.lists(st.integers(0, count), min_size=ops, max_size=ops).map(np.array)
    error = st.sampled_from([0.0, 1e-6, 0.01, 10.0])
    observed = st.builds(Observed, chosen, LOSSES, error, error)
    asked = draw(st.lists(chosen, min_size=1, max_size=3))
    is_scored = draw(st.booleans())
    shared = np.repeat([[0], [1]], ops, axis=1) if draw(st.booleans()) else None
    return (
        LossModel(sensitivities, scale, is_scored, shared=shared),
        draw(st.lists(observed, max_size=6)),
        asked,
    )


@settings(max_examples=examples(200), deadline=None)
@given(situations())
def test_predictions_are_numbers_whatever_comes(situation):
    model, observed, asked = situation
    with np.errstate(all="raise", under="ignore"):
        fitted = model.fitted(observed)
        assert np.isfinite(fitted.weights).all()
        assert (fitted.weights >= 0).all()
        for chosen in asked:
            found = fitted.predict(chosen)
            assert found.loss >= 0
            assert math.isfinite(found.loss)
            assert found.deviation >= 0
            assert math.isfinite(found.deviation)
            for tolerance in (1e-9, model.scale.tolerance, 1e6):
                assert 0 <= found.probability(tolerance) <= 1


def test_five_hundred_ops():
    rng = np.random.default_rng(5)
    truth = 10.0 ** rng.uniform(-8, -3, 500)
    model = model_of(*truth * np.exp(rng.normal(0, 0.5, 500)))
    seen = []
    for _ in range(20):
        chosen = np.flatnonzero(rng.random(500) < 0.7)
        seen.append(Observed(options(*chosen, ops=500), float(truth[chosen].sum())))
    fitted = model.fitted(seen)
    chosen = np.flatnonzero(rng.random(500) < 0.7)
    found = fitted.predict(options(*chosen, ops=500))
    assert found.loss == pytest.approx(truth[chosen].sum(), rel=0.3)
