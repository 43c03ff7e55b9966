"""A backend that simulates candidates: the model itself decides whether the criterion is met."""

from __future__ import annotations

from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import optuna
import pytest

import optuna_quant
from optuna_quant.study import record
from optuna_quant.study.evaluation_cost import full_evaluations
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
    assert first.simulated_metric == pytest.approx(0.87)
    assert first.metric == pytest.approx(first.simulated_metric - 0.04)
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
    found = [v for v in views(result.study) if v.simulated_metric is not None]
    view = next(v for v in found if v.is_complete)
    if stopping != "off":
        assert len(view.scores) == 200
        assert view.metric == pytest.approx(view.scores.mean())
    assert search(Simulating(), **options).config == result.config


def test_a_model_that_cannot_be_built_fails_its_trial() -> None:
    backend = Simulating(error=True)
    result = search(backend, max_trials=3)
    assert not result.met
    failures = [v.failure for v in views(result.study) if v.failure]
    assert failures
    assert "no such kernel" in failures[0]
