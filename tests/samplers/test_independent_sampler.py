"""The parameters outside the space come from the sampler that was given for them."""

from __future__ import annotations

from typing import Any
import warnings

from fake_backend import FakeBackend
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import PartialFixedSampler
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.study.record_check import check_record


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
BACKEND = FakeBackend({"op0": 0.1, "op1": 0.01, "op2": 0.0, "op3": 0.02, "op4": 0.03})
SPACE = BACKEND.tuning_space()


class Together(optuna.samplers.RandomSampler):
    """Samples together what the last trial had; it must not be given what is not its own."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        return dict(done[-1].distributions) if done else {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        assert all(isinstance(d, FloatDistribution) for d in search_space.values())
        return {name: 0.25 for name in search_space}


def mixed(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    return BACKEND.accuracy(SPACE.suggest(trial)) - (x - 0.3) ** 2 - (y - 0.7) ** 2


def study_of(independent: BaseSampler) -> optuna.Study:
    sampler = BasicQuantSampler(SPACE, criterion=CRITERION, independent_sampler=independent)
    return optuna.create_study(direction="maximize", sampler=sampler)


def test_what_it_samples_together_is_taken() -> None:
    study, alone = study_of(Together(seed=0)), study_of(optuna.samplers.RandomSampler())
    for each in (study, alone):
        each.optimize(lambda trial: 0 * mixed(trial) + 0.9, n_trials=4)
    assert [(t.params["x"], t.params["y"]) for t in study.trials[1:]] == [(0.25, 0.25)] * 3
    # What the strategy chooses does not depend on it.
    keys = [[SPACE.key_from_params(t.params) for t in each.trials] for each in (study, alone)]
    assert keys[0] == keys[1]


def test_fixed_parameters_stay_fixed() -> None:
    study = study_of(Together(seed=0))
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study.sampler = PartialFixedSampler({"y": 0.5}, study.sampler)
    study.optimize(mixed, n_trials=3)
    assert [t.params["y"] for t in study.trials] == [0.5] * 3
    assert [t.params["x"] for t in study.trials[1:]] == [0.25] * 2


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", ["gp", "nsgaii", "tpe"])
def test_samplers_of_optuna(name: str) -> None:
    if name == "gp":
        pytest.importorskip("torch")
        independent: BaseSampler = optuna.samplers.GPSampler(seed=0, n_startup_trials=2)
    elif name == "nsgaii":
        independent = optuna.samplers.NSGAIISampler(seed=0, population_size=3)
    else:
        independent = optuna.samplers.TPESampler(seed=0, multivariate=True, n_startup_trials=2)
    study = study_of(independent)
    study.enqueue_trial(SPACE.params_of(SPACE.default()))  # Before the baseline: not judged.
    study.optimize(mixed, n_trials=6)
    assert len({SPACE.key_from_params(t.params) for t in study.trials}) == 6
    assert {len(trial.constraints) for trial in study.trials} == {2}
    check_record(study)
