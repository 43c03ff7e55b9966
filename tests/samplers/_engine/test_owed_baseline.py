"""Trials that end before there is a baseline, and trials of FP32 that measure none."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
import time
import warnings

from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant.dashboard.callback import legacy_constraints
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import TPEQuantSampler
from optuna_quant.selection import best_met_trial
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.record_check import check_record


CRITERION = AccuracyCriterion(tolerable_loss=0.05)
BACKEND = FakeBackend({"op0": 0.1, "op1": 0.01, "op2": 0.0})
SPACE = BACKEND.tuning_space()
BAD = SPACE.default()
GOOD = BAD.with_fallback("op0")
UNJUDGED = {"unjudged": 1.0, "quantized": 0.0}


def own(trial: optuna.Trial) -> float:
    return BACKEND.accuracy(SPACE.suggest(trial))


def study_of(**kwargs: object) -> optuna.Study:
    return optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(SPACE, criterion=CRITERION), **kwargs
    )


def is_fp32(trial: optuna.trial.FrozenTrial) -> bool:
    return SPACE.key_from_params(trial.params) == SPACE.fp32().key


def reporting(trial: optuna.Trial) -> float:
    value = own(trial)
    trial.report(value, 1)
    if trial.should_prune():
        raise optuna.TrialPruned
    return value


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    return lambda: [
        each.getMessage()
        for each in caplog.records
        if each.levelno == logging.WARNING and each.name.startswith("optuna_quant")
    ]


@pytest.mark.parametrize(
    "sampler",
    [BasicQuantSampler, TPEQuantSampler, SurrogateQuantSampler],
    ids=lambda s: s.__name__,
)
def test_what_the_queue_puts_before_the_baseline_is_never_the_best(
    sampler: Callable[..., optuna.samplers.BaseSampler],
) -> None:
    study = optuna.create_study(direction="maximize", sampler=sampler(SPACE, criterion=CRITERION))
    study.enqueue_trial(SPACE.params_of(BAD))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Nor does the policy say that no trial measures it.
        study.optimize(own, n_trials=2, callbacks=[ExitPolicy(CRITERION)])
    assert [is_fp32(trial) for trial in study.trials] == [False, True]
    with pytest.raises(ValueError, match="No feasible trials"):
        _ = study.best_trial
    assert best_met_trial(study, CRITERION) is None
    study.optimize(own, n_trials=20, callbacks=[ExitPolicy(CRITERION)])
    assert study.best_value >= 0.9 * 0.95
    check_record(study)


def test_early_trial_is_judged_by_the_record_as_soon_as_it_can_be() -> None:
    study = study_of()
    study.enqueue_trial(SPACE.params_of(GOOD))
    study.optimize(own, callbacks=[ExitPolicy(CRITERION)])
    # It ends the search, once FP32 is known, and is its answer; Optuna does not hear of it.
    assert len(study.trials) == 2
    assert best_met_trial(study, CRITERION).number == 0
    assert study.trials[0].constraints == UNJUDGED
    assert legacy_constraints(study.trials[0].constraints) == [0.0, 1.0]


def test_front_of_several_objectives_has_no_early_trial_that_misses_the_criterion() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=BasicQuantSampler(SPACE, criterion=CRITERION),
    )
    study.enqueue_trial(SPACE.params_of(BAD))
    study.optimize(
        lambda trial: (own(trial), sum(v == "fp32" for v in trial.params.values())), n_trials=8
    )
    assert study.best_trials
    assert all(CRITERION.meets(trial.values[0], 0.9) for trial in study.best_trials)


def test_trials_that_are_told_before_the_baseline() -> None:
    study = study_of()
    asked = [study.ask() for _ in range(3)]
    values = [own(trial) for trial in asked]
    for trial, value in reversed(list(zip(asked, values, strict=True))):
        study.tell(trial, value)
    assert get_baseline(study) == Baseline(0.9, 0)
    assert all(trial.constraints for trial in study.trials)
    with pytest.raises(ValueError, match="No feasible trials"):
        _ = study.best_trial


def test_next_trial_takes_over_from_a_worker_that_did_not_measure_the_baseline() -> None:
    study = study_of()
    asked = threading.Event()
    waits = threading.Event()

    def measure() -> None:
        trial = study.ask()
        own(trial)
        asked.set()
        waits.wait()
        time.sleep(0.2)  # The other one waits for the baseline by now.
        study.tell(trial, state=TrialState.FAIL)

    thread = threading.Thread(target=measure)
    thread.start()
    asked.wait()
    trial = study.ask()
    value = own(trial)
    waits.set()
    study.tell(trial, value)
    thread.join()
    assert study.trials[1].constraints == UNJUDGED
    study.optimize(own, n_trials=2)
    assert [is_fp32(trial) for trial in study.trials] == [True, False, True, False]
    assert get_baseline(study) == Baseline(0.9, 2)
    assert "accuracy" in study.trials[3].constraints


def test_pruned_trial_of_fp32_is_repeated(told: Callable[[], list[str]]) -> None:
    study = study_of(pruner=optuna.pruners.ThresholdPruner(lower=0.95))
    study.optimize(reporting, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED and is_fp32(study.trials[0])
    study.pruner = optuna.pruners.NopPruner()
    study.optimize(reporting, n_trials=2)
    assert [is_fp32(trial) for trial in study.trials] == [True, True, False]
    assert get_baseline(study) == Baseline(0.9, 1)
    assert "accuracy" in study.trials[2].constraints
    assert told() == []


def test_fp32_that_is_always_pruned_is_given_up_and_told_once(
    told: Callable[[], list[str]],
) -> None:
    study = study_of(pruner=optuna.pruners.ThresholdPruner(lower=0.89))

    def strict(trial: optuna.Trial) -> float:
        value = own(trial)
        trial.report(value - 0.5, 1)
        if trial.should_prune() and value == 0.9:
            raise optuna.TrialPruned
        return value

    study.optimize(strict, n_trials=3)
    (message,) = told()
    assert "pruned in 3 trials (the study has the pruner ThresholdPruner)" in message
    assert "set_baseline(study, Baseline(value))" in message
    assert "optuna_quant.pruners.AccuracyPruner" in message
    study.optimize(strict, n_trials=2, callbacks=[ExitPolicy(CRITERION)])
    assert [is_fp32(trial) for trial in study.trials] == [True] * 3 + [False] * 2
    assert len(told()) == 1
    # What a pruned trial has reported last is its value for Optuna, and no baseline.
    assert get_baseline(study) is None
    with pytest.raises(ValueError, match="No feasible trials"):
        _ = study.best_trial
    # The cure that is named.
    study.pruner = AccuracyPruner(CRITERION)
    study.enqueue_trial(SPACE.params_of(SPACE.fp32()))
    study.optimize(strict, n_trials=2)
    assert get_baseline(study) == Baseline(0.9, 5)
    assert "accuracy" in study.trials[6].constraints


def test_baseline_that_is_set_ends_the_attempts() -> None:
    study = study_of(pruner=optuna.pruners.ThresholdPruner(lower=0.95))
    study.optimize(reporting, n_trials=1)
    set_baseline(study, Baseline(0.9))
    study.optimize(own, n_trials=1)
    assert not is_fp32(study.trials[1])
    assert study.trials[1].constraints["accuracy"] == pytest.approx(0.9 * 0.95 - 0.79)


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_fp32_that_fails_is_given_up_and_told_once(
    how: str, told: Callable[[], list[str]]
) -> None:
    def failing(trial: optuna.Trial) -> float:
        if SPACE.suggest(trial).quantized_ops:
            return own(trial)
        if how == "raises":
            raise RuntimeError
        return float("nan")

    study = study_of()
    study.optimize(failing, n_trials=6, catch=(RuntimeError,))
    assert [is_fp32(trial) for trial in study.trials] == [True] * 3 + [False] * 3
    (message,) = told()
    assert "FP32 model could not be evaluated: the evaluation failed (3 times)" in message
    assert [trial.constraints for trial in study.trials[3:]] == [UNJUDGED] * 3


def test_sampler_that_measures_no_baseline_says_so(told: Callable[[], list[str]]) -> None:
    sampler = BasicQuantSampler(SPACE, criterion=CRITERION, baseline=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Once is enough.
        study.optimize(own, n_trials=3, callbacks=[ExitPolicy(CRITERION)])
    (message,) = told()
    assert "the sampler has baseline=False" in message


def test_policy_says_it_where_the_sampler_has_no_criterion() -> None:
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(SPACE))
    study.enqueue_trial(SPACE.params_of(BAD))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.optimize(own, n_trials=1, callbacks=[ExitPolicy(CRITERION)])
    study.sampler = BasicQuantSampler(SPACE, baseline=False)
    with pytest.warns(UserWarning, match="has no baseline"):
        study.optimize(own, n_trials=1, callbacks=[ExitPolicy(CRITERION)])


def test_fp32_that_another_sampler_has_evaluated_is_the_baseline() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler())
    study.enqueue_trial(SPACE.params_of(SPACE.fp32()))
    study.optimize(own, n_trials=1)
    study.sampler = BasicQuantSampler(SPACE, criterion=CRITERION)
    study.optimize(own, n_trials=1)
    assert get_baseline(study) == Baseline(0.9, 0)
    assert "accuracy" in study.trials[1].constraints
