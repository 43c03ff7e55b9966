"""Scores of which only the best is known, as of errors: given up once it is certain."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import onnx_models
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import SampleMetric
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.sample_metrics import mse
from optuna_quant.sequential import Decision
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import WeightedThresholdTest
from optuna_quant.sequential.weighted_threshold import bounds
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.population_record import read_population
from optuna_quant.study.population_record import write_population


SIZES = st.floats(0, 1e6).map(lambda x: 0.0 if x < 1e-6 else x)
ERRORS = st.lists(SIZES, min_size=1, max_size=30).map(np.array)


def population_of(errors: np.ndarray, *, higher_is_better: bool = False) -> Population:
    """The population of a baseline with these errors below or above the best score, 5."""
    levels = np.zeros(len(errors), dtype=np.uint8)
    return Population(
        order=SampleOrder.draw(levels, seed=0),
        baseline=5 - errors if higher_is_better else 5 + errors,
        bounds=(-math.inf, 5.0) if higher_is_better else (5.0, math.inf),
        higher_is_better=higher_is_better,
        method="paired",
    )


@given(ERRORS, st.data(), st.floats(0, 3), st.booleans())
def test_it_fails_when_the_sum_is_too_large_and_not_before(
    baseline: np.ndarray, data: st.DataObject, factor: float, higher: bool
) -> None:
    count = len(baseline)
    errors = np.array(data.draw(st.lists(SIZES, min_size=count, max_size=count)))
    tolerable = factor * float(baseline.mean())
    population = population_of(baseline, higher_is_better=higher)
    needed = population.normalized_mean(5 - tolerable if higher else 5 + tolerable)
    test = WeightedThresholdTest(population, needed)
    scores = population.normalized(5 - errors if higher else 5 + errors)
    slack = 1e-6 * max(1.0, float(baseline.mean()), tolerable)
    for seen in range(1, count + 1):
        decision = test.update(scores[seen - 1 : seen])
        total = float(errors[:seen].sum()) / count
        if total > tolerable + slack:
            assert decision is Decision.FAILS
            assert test.is_exact
        elif total < tolerable - slack:
            assert decision is (Decision.MEETS if seen == count else Decision.OPEN)


@given(ERRORS, st.booleans())
def test_the_scale_is_there_and_back(errors: np.ndarray, higher: bool) -> None:
    population = population_of(errors, higher_is_better=higher)
    mean = float(population.baseline.mean())
    assert population.metric(population.normalized_mean(mean)) == pytest.approx(mean)
    normal = population.normalized(population.baseline)
    assert normal.max() <= 1
    assert population.metric(float(normal.mean())) == pytest.approx(mean)
    low, high = bounds(population, population.normalized_baseline[:-1])
    assert low == -math.inf
    assert high >= population.normalized_baseline.mean() - 1e-9


def test_it_comes_back_from_a_study() -> None:
    study = optuna.create_study()
    for higher in (False, True):
        population = population_of(np.array([1.0, 2, 4]), higher_is_better=higher)
        levels = np.zeros(3, dtype=np.uint8)
        key = write_population(study, population, levels=levels, seed=0)
        set_baseline(study, Baseline(3.0, 0, key))
        found = read_population(study)
        assert found is not None
        assert found.bounds == population.bounds
        study = optuna.create_study()


# A search.


X = onnx_models.samples(300, 2, 8, 8)


def search(tmp_path: Path | None = None, **kwargs: Any) -> TuningResult:
    model = onnx_models.convnet()
    (truth,) = onnx_models.run(model, {"x": X})
    noise = (
        np.random.default_rng(0).normal(size=truth.shape) * np.linspace(0, 0.35, len(X))[:, None]
    )
    return tune(
        model,
        calibration_data=X[:40],
        data={"x": X, "labels": truth + noise},
        **{
            "metric": "mse",
            "batch_size": 16,
            "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.2),
            "tuning_criterion": TuningCriterion(timeout=None, max_trials=40, objective="ops"),
            "storage": None if tmp_path is None else str(tmp_path / "journal"),
            **kwargs,
        },
    )


def test_mse_needs_no_bounds(caplog: pytest.LogCaptureFixture) -> None:
    result, full = search(), search(early_stopping="off")
    assert result.met is full.met
    assert result.criterion.higher_is_better is False
    assert result.loss_interval is None
    given_up = result.study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert given_up
    assert 1 < result.full_evaluations < len(result.study.trials) - len(given_up) / 4
    backend, space = result.backend, result.space
    evaluation = DataEvaluation(
        {"x": X, "labels": full_labels()}, SampleMetric(name="own", score=mse)
    )
    for trial in given_up:
        evidence = trial.user_attrs["evidence"]
        assert evidence["decision"] == "fails"
        assert evidence["error_probability"] == 0
        assert evidence["bounds"][1] is None
        assert "Infinity" not in json.dumps(evidence)
        assert evidence["samples"] < 300
        # It is really so.
        assert result.baseline is not None
        value = evaluation(backend.quantize(space.config_from_params(trial.params)))
        assert value > 1.2 * result.baseline
        assert value >= evidence["bounds"][0]
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def full_labels() -> np.ndarray:
    (truth,) = onnx_models.run(onnx_models.convnet(), {"x": X})
    noise = (
        np.random.default_rng(0).normal(size=truth.shape) * np.linspace(0, 0.35, len(X))[:, None]
    )
    return np.asarray(truth + noise)


def test_it_is_continued_with_another_tolerance(tmp_path: Path) -> None:
    strict = search(tmp_path)
    wide = search(tmp_path, accuracy_criterion=AccuracyCriterion(tolerable_loss=0.4))
    alone = search(accuracy_criterion=AccuracyCriterion(tolerable_loss=0.4))
    assert strict.baseline == wide.baseline
    assert wide.met is alone.met is True
    # What is known before may show an answer that is as good.
    assert len(wide.fallback_ops) <= len(alone.fallback_ops)


def test_asking_for_bets_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    search(
        early_stopping="paired", tuning_criterion=TuningCriterion(max_trials=1, objective="ops")
    )
    (said,) = [r.getMessage() for r in caplog.records if "certainly fails" in r.getMessage()]
    assert "'mse' has no bound on how bad" in said
    assert "metric_bounds" in said


def test_bounds_may_be_given_where_the_metric_leaves_them_open() -> None:
    data = {"x": X, "labels": X}
    assert DataEvaluation(data, "mse").bounds == (0, math.inf)
    assert DataEvaluation(data, "mse", metric_bounds=(0, 4)).bounds == (0, 4)
    with pytest.raises(ValueError, match=r"bounds \(0.0, inf\), but got metric_bounds=\(-1.0, 4"):
        DataEvaluation(data, "mse", metric_bounds=(-1, 4))


def test_a_bound_on_the_good_side_alone_is_what_counts() -> None:
    data = {"x": X, "labels": X}
    lower = SampleMetric(name="gain", score=mse, bounds=(0, math.inf))
    upper = SampleMetric(name="gain", score=mse, bounds=(-math.inf, 0))
    assert DataEvaluation(data, lower).bounds is None
    assert DataEvaluation(data, upper).bounds == (-math.inf, 0)
