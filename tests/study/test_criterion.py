"""A study with an objective of one's own is continued with another criterion."""

from __future__ import annotations

from collections.abc import Callable
import logging

from fake_backend import FakeBackend
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.selection import best_met_trial
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.study.trial_view import TrialView


LOOSE = AccuracyCriterion(criterion="absolute", tolerable_loss=0.5)
STRICT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
BACKEND = FakeBackend({"op0": 0.1, "op1": 0.01, "op2": 0.0})
SPACE = BACKEND.tuning_space()


def own(trial: optuna.Trial) -> float:
    return BACKEND.accuracy(SPACE.suggest(trial))


def reporting(trial: optuna.Trial) -> float:
    value = own(trial)
    trial.report(value, 10)
    trial.should_prune()
    return value


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings of another criterion so far."""
    return lambda: [
        each.getMessage()
        for each in caplog.records
        if each.levelno == logging.WARNING and "another criterion" in each.getMessage()
    ]


@pytest.fixture
def loose() -> optuna.Study:
    """A study that was started with the loose criterion: its trial 1 meets that, no other."""
    sampler = BasicQuantSampler(SPACE, criterion=LOOSE)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(own, n_trials=2)
    assert study.best_trial.number == 1
    return study


def test_sampler_says_it_once_and_judges_by_its_own(
    loose: optuna.Study, told: Callable[[], list[str]]
) -> None:
    loose.sampler = BasicQuantSampler(SPACE, criterion=STRICT)
    loose.optimize(own, n_trials=4, callbacks=[ExitPolicy(STRICT, timeout=None)])
    (message,) = told()
    assert f"({LOOSE}; now: {STRICT})" in message
    assert "study.best_trial still goes by the old one for trials that have ended" in message
    assert recorded_criterion(loose) == LOOSE
    assert [TrialView(trial).judged_by for trial in loose.trials] == [None] * 2 + [STRICT] * 4
    for trial in loose.trials[2:]:
        assert (trial.constraints["accuracy"] <= 0) == STRICT.meets(trial.value, 0.9)
    found = best_met_trial(loose, STRICT)
    assert found is not None and STRICT.meets(found.value, 0.9)


def test_same_criterion_is_not_told(loose: optuna.Study, told: Callable[[], list[str]]) -> None:
    loose.sampler = BasicQuantSampler(SPACE, criterion=LOOSE)
    loose.optimize(own, n_trials=2, callbacks=[ExitPolicy(LOOSE, timeout=None)])
    assert told() == []


def test_sampler_refuses_a_pruner_with_another_one(loose: optuna.Study) -> None:
    loose.pruner = AccuracyPruner(STRICT)
    with pytest.raises(ValueError, match="The sampler uses another criterion than the pruner"):
        loose.optimize(own, n_trials=1)


def test_policy_says_it_where_the_sampler_judges_nothing(
    loose: optuna.Study, told: Callable[[], list[str]]
) -> None:
    loose.sampler = optuna.samplers.RandomSampler(seed=0)
    loose.optimize(own, n_trials=3, callbacks=[ExitPolicy(STRICT, timeout=None)])
    (message,) = told()
    assert str(LOOSE) in message and str(STRICT) in message


def test_pruner_says_it_where_the_sampler_judges_nothing(
    loose: optuna.Study, told: Callable[[], list[str]]
) -> None:
    loose.sampler, loose.pruner = optuna.samplers.RandomSampler(seed=0), AccuracyPruner(STRICT)
    set_baseline(loose, Baseline(0.9))
    loose.optimize(reporting, n_trials=3)
    assert len(told()) == 1
