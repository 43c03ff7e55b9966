"""A backend that simulates candidates: the model itself decides whether the criterion is met."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import numpy as np
import optuna
import pytest

import optuna_quant
from optuna_quant.evaluation.difference import compare
from optuna_quant.report import collect
from optuna_quant.report import collect_recorded
from optuna_quant.study import record
from optuna_quant.study.evaluation_cost import full_evaluations
from optuna_quant.study.record_check import DamagedRecordError
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views


DAMAGE = {"a": 0.05, "b": 0.01, "c": 0.01}


class Simulating(FakeBackend):
    """Its simulation is better than its models by what quantizing "a" costs beyond 0.01."""

    def __init__(self, *, error: bool = False) -> None:
        super().__init__(DAMAGE)
        self.simulations: list[Any] = []
        self.error = error

    def simulated(self, config: Any) -> FakeModel:
        self.simulations.append(config)
        better = 0.04 if "a" in config.quantized_ops else 0.0
        accuracy = round(self.accuracy(config) + better, 10)
        return FakeModel(config, accuracy, self.fingerprint(config))

    def quantize(self, config: Any) -> FakeModel:
        if self.error and config.quantized_ops:
            raise RuntimeError("no such kernel")
        return super().quantize(config)


def accuracy(model: FakeModel) -> float:
    return model.accuracy


def search(backend: FakeBackend, **options: Any) -> optuna_quant.TuningResult:
    options.setdefault("evaluate", accuracy)
    return optuna_quant.tune(
        backend=backend, strategy="basic", tolerable_loss=0.035, criterion="absolute", **options
    )


def test_the_model_itself_decides(capsys: pytest.CaptureFixture[str]) -> None:
    """All quantized: the simulation loses 0.03, which is met; the model 0.07, which is not."""
    result = search(Simulating())
    assert result.met
    first = next(v for v in views(result.study) if v.trial.user_attrs.get(record.SIMULATED))
    assert first.simulation.metric == pytest.approx(0.87)
    assert first.metric == pytest.approx(first.simulation.metric - 0.04)
    assert first.met is False
    assert result.config.ops["a"].mode == "fp32"
    assert f"its simulation had a metric of {result.metric:.6g}" in str(result)
    assert "not met: metric 0.83, loss 0.07 (its simulation met it with 0.87)" in (
        capsys.readouterr().err
    )


def test_what_misses_in_simulation_is_not_built() -> None:
    backend = Simulating()
    result = optuna_quant.tune(
        backend=backend,
        strategy="basic",
        tolerable_loss=0.005,
        criterion="absolute",
        evaluate=accuracy,
    )
    assert not result.met
    built = [config for config in backend.built if config.quantized_ops]
    assert built == []
    assert backend.simulations


def test_what_is_handed_on_is_the_model_and_not_its_simulation() -> None:
    found: dict[int, FakeModel] = {}
    backend = Simulating()
    space = backend.tuning_space()
    criterion = optuna_quant.AccuracyCriterion(criterion="absolute", tolerable_loss=0.035)
    objective = optuna_quant.QuantObjective(
        backend,
        space,
        accuracy,
        criterion,
        on_met=lambda trial, model: found.update({trial.number: model}),
    )
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna_quant.samplers.BasicQuantSampler(space, criterion=criterion),
    )
    study.optimize(objective, n_trials=6)
    assert list(found) == [v.number for v in views(study) if v.met]
    for number, model in found.items():
        assert model.config in backend.built
        assert model.accuracy == study.trials[number].value


def test_both_evaluations_count() -> None:
    result = search(Simulating())
    simulated = sum(v.simulated_evaluations for v in views(result.study))
    assert simulated >= 2
    complete = len(result.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
    second = 1  # Of the answer.
    assert full_evaluations(result.study) == complete + simulated + second


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_scores_of_samples_are_those_of_the_model(stopping: str) -> None:
    """The record's check holds the metric against the scores; a second look finds no damage."""
    storage = optuna.storages.InMemoryStorage()
    options: dict[str, Any] = {
        "evaluate": None,
        "data": fake_data(200),
        "metric": "top1",
        "early_stopping": stopping,
        "storage": storage,
        "study_name": "s",
    }
    result = search(Simulating(), **options)
    # A model that certainly misses the criterion is not evaluated to its end.
    found = [v for v in views(result.study) if v.simulation is not None]
    view = next(v for v in found if v.is_complete)
    if stopping != "off":
        assert len(view.scores) == 200
        assert view.metric == pytest.approx(view.scores.mean())
    assert search(Simulating(), **options).config == result.config


def test_the_difference_of_outputs_is_measured_on_a_part_of_the_samples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The simulation predicts 0.04 more right: where the input is between both accuracies."""
    found = search(
        Simulating(), evaluate=None, data=fake_data(1000), metric="top1", early_stopping="off"
    )
    view = next(v for v in views(found.study) if v.simulation and v.simulation.metric < 0.88)
    assert view.simulation is not None
    difference = view.simulation.difference
    assert difference is not None
    assert (difference.samples, difference.of) == (200, "evaluation")
    assert difference.agreement == pytest.approx(0.96)
    assert difference.largest == pytest.approx(0.04)
    assert view.simulation.evaluated == pytest.approx(1 + 2 * 0.2)
    told = "(its simulation met it with 0.87; 96% of predictions are the same)"
    assert told in capsys.readouterr().err
    # The answer is as its simulation.
    assert found.simulation is not None
    assert found.simulation.difference is not None
    assert found.simulation.difference.largest == 0
    said = f"its simulation had a metric of {found.metric:.6g} (the same); on"
    assert f"{said} 200 evaluation samples, outputs are the same" in str(found)
    facts = collect(found).answer
    assert facts is not None and facts.simulation is not None
    assert facts.simulation.text == found.simulation.beside(found.metric)
    assert facts.simulation.metric_difference == 0
    assert facts.simulation.samples == 200
    assert facts.simulation.text in collect(found).to_html()
    assert collect_recorded(found.study).answer.simulation == facts.simulation


def test_a_trial_that_reuses_a_result_has_the_simulation_of_the_other() -> None:
    found = search(Simulating())
    assert found.trial is not None
    study = found.study
    number = found.trial.number
    copied = optuna.trial.create_trial(
        params=found.trial.params,
        distributions=found.trial.distributions,
        value=found.trial.value,
        user_attrs={"reused_from": number},
    )
    again = replace(found, trial=copied, study=study)
    assert again.simulation == TrialView(found.trial).simulation


def test_calibration_data_are_taken_where_a_function_evaluates() -> None:
    class Previews(Simulating):
        def calibration_preview(self, samples: int) -> Any:
            x = fake_data(100)["x"]
            return 100, [{"x": x[:40]}, {"x": x[40:]}]

    found = search(Previews())
    view = next(v for v in views(found.study) if v.simulation is not None)
    assert view.simulation is not None and view.simulation.difference is not None
    assert view.simulation.difference.samples == 100
    assert "on 100 calibration samples" in str(found)


def test_outputs_that_cannot_be_compared_are_no_failure() -> None:
    class Other(Simulating):
        def calibration_preview(self, samples: int) -> Any:
            return 100, [{"z": np.zeros(100)}]  # The models have no such input.

    found = search(Other(), measure_gain=False)
    assert found.met
    assert found.simulation is not None
    assert found.simulation.difference is None


class _Given:
    """Gives the same outputs for any input."""

    inputs = ()
    outputs = ("y",)

    def __init__(self, *arrays: Any) -> None:
        self.arrays = [np.asarray(each) for each in arrays]

    def run(self, feed: Any, outputs: Any = None) -> Any:
        return self.arrays


@pytest.mark.parametrize(
    ("one", "other", "agreement", "largest"),
    [
        ([[0.1, 0.9], [0.6, 0.4]], [[0.2, 0.9], [0.4, 0.6]], 0.5, 0.2),
        ([[1.0], [2.0]], [[1.5], [2.0]], None, 0.5),  # One number a sample is no class.
        ([1.0, 2.0], [1.0, 3.0], None, 1.0),
        (np.zeros((2, 3, 4, 4)), np.ones((2, 3, 4, 4)), None, 1.0),  # An image.
        ([[1, 2], [3, 4]], [[1, 2], [3, 5]], None, 1.0),
        ([[np.nan, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], 0.5, None),
    ],
)
def test_what_agrees(one: Any, other: Any, agreement: float | None, largest: float) -> None:
    found = compare(_Given(one), _Given(other), [{"x": np.zeros((2, 1))}])
    assert found.samples == 2
    assert found.agreement == agreement
    assert found.largest == (None if largest is None else pytest.approx(largest))
    assert "on 2 evaluation samples" in str(found)


def test_models_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        compare(_Given([1.0]), _Given([1.0]), [])
    with pytest.raises(ValueError, match="shapes"):
        compare(_Given([1.0]), _Given([1.0, 2.0]), [{"x": np.zeros(1)}])


def test_a_damaged_record_is_noticed() -> None:
    storage = optuna.storages.InMemoryStorage()
    options: dict[str, Any] = {"storage": storage, "study_name": "s"}
    found = search(Simulating(), evaluate=None, data=fake_data(200), metric="top1", **options)
    trial = next(v.trial for v in views(found.study) if v.simulation is not None)
    damaged = {**trial.user_attrs[record.SIMULATED], "difference": {"samples": "many"}}
    storage._trials = None
    study_id = storage.get_study_id_from_name("s")
    kept = next(
        t for t in storage.get_all_trials(study_id, deepcopy=False) if t.number == trial.number
    )
    kept.user_attrs[record.SIMULATED] = damaged
    with pytest.raises(DamagedRecordError, match="simulated"):
        search(Simulating(), evaluate=None, data=fake_data(200), metric="top1", **options)


def test_a_model_that_cannot_be_built_fails_its_trial() -> None:
    backend = Simulating(error=True)
    result = search(backend, max_trials=3)
    assert not result.met
    failures = [v.failure for v in views(result.study) if v.failure]
    assert failures
    assert "no such kernel" in failures[0]
