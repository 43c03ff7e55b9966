"""When the evaluation of a candidate ends early, and who says so."""

from __future__ import annotations

from typing import Any

from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
import pytest
from sample_models import CRITERION
from sample_models import DAMAGE
from sample_models import SampleScores

import optuna_quant
from optuna_quant import EarlyStopping
from optuna_quant.sequential.methods import METHODS
from optuna_quant.study.population_record import read_population


def tune(**options: Any) -> optuna_quant.TuningResult:
    scores = SampleScores(DAMAGE)

    def evaluate(model: Any, indices: Any = None) -> Any:
        found = scores.scores_of(model.config).astype(bool)
        return found if indices is None else found[indices]

    backend = FakeBackend(DAMAGE)
    return optuna_quant.tune(
        backend=backend, evaluate=evaluate, accuracy_criterion=CRITERION, **options
    )


@pytest.mark.parametrize("method", METHODS)
def test_it_is_a_value(method: str) -> None:
    assert EarlyStopping(method=method) == EarlyStopping(method=method, error_probability=1e-3)
    assert len({EarlyStopping(method=method), EarlyStopping(method=method)}) == 1


@pytest.mark.parametrize("probability", [0, 1, -0.1, 2.0])
def test_what_is_no_probability_of_error_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=f"above 0 and below 1, but got {probability}"):
        EarlyStopping(error_probability=probability)


@pytest.mark.parametrize("probability", [True, "0.1", None])
def test_what_is_no_number_is_refused(probability: Any) -> None:
    with pytest.raises(TypeError, match="error_probability must be a number, but got"):
        EarlyStopping(error_probability=probability)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="one of paired, unpaired, exact, but got 'off'"):
        EarlyStopping(method="off")


def test_a_search_stops_early_without_a_pruner() -> None:
    result = tune(early_stopping="unpaired", error_probability=0.01)
    study = result.study
    assert isinstance(study.pruner, optuna.pruners.NopPruner)
    assert any(trial.state == TrialState.PRUNED for trial in study.trials)
    population = read_population(study)
    assert population is not None
    assert (population.method, population.error_probability) == ("unpaired", 0.01)


def test_a_search_in_full_keeps_no_samples() -> None:
    study = tune(early_stopping="off").study
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert read_population(study) is None
