"""What a study minimizes is read from its record in one place."""

from __future__ import annotations

import optuna
import pytest

from optuna_quant.costs.objective import MeasureObjective
from optuna_quant.costs.objective import WeightedObjective
from optuna_quant.costs.objective import as_objective
from optuna_quant.costs.recorded_objective import keep_objective
from optuna_quant.costs.recorded_objective import objective_name
from optuna_quant.costs.recorded_objective import recorded_objective


@pytest.mark.parametrize(
    "objective", [MeasureObjective("size"), WeightedObjective({"latency": 0.7, "size": 0.3})]
)
def test_it_comes_back(objective: MeasureObjective | WeightedObjective) -> None:
    study = optuna.create_study()
    keep_objective(study, objective.name)
    assert objective_name(study) == objective.name
    assert recorded_objective(study) == objective


def test_of_a_function_there_is_the_name_alone() -> None:
    study = optuna.create_study()
    keep_objective(study, as_objective(lambda config: 0.0).name)
    assert objective_name(study) == "own"
    assert recorded_objective(study) is None


def test_a_study_that_says_nothing_minimizes_ops_in_fallback() -> None:
    assert recorded_objective(optuna.create_study()) == MeasureObjective("ops")
