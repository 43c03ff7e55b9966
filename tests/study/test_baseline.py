"""Who measures the baseline of a study, and which value counts."""

from __future__ import annotations

from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
from study.made_trials import claimed
from study.made_trials import trial_with

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers._engine.trial_history import TrialHistory
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import ahead_of
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import propose_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.baseline import who_measures
from optuna_quant.study.trial_view import TrialView


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def test_the_trial_of_the_fp32_model_is_elected_then_the_lowest_number() -> None:
    running = TrialState.RUNNING
    first, fp32 = claimed(0, "a", state=running), claimed(2, "fp32", state=running)
    foreign = trial_with(number=1, state=running)
    trials = [first, foreign, fp32]
    assert ahead_of(2, trials, "fp32") == []
    assert ahead_of(0, trials, "fp32") == [fp32]
    assert ahead_of(1, trials, "fp32") == [first, fp32]
    assert ahead_of(1, [first, foreign], "fp32") == [first]
    assert ahead_of(7, trials, "fp32") == []
    assert who_measures(trials, "fp32") == "host|2"
    assert who_measures([first, foreign], "fp32") is None


def test_a_sampler_goes_by_the_baseline_of_its_study() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0})
    space = backend.tuning_space()
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, criterion=CRITERION)
    )
    set_baseline(study, Baseline(0.95))
    study.optimize(lambda trial: backend.quantize(space.suggest(trial)).accuracy, n_trials=2)
    history = TrialHistory(study, space, max_failures=1, max_deaths=1, criterion=CRITERION)
    history.refresh(study)
    assert study.trials[0].value == 0.9
    assert history.baseline == 0.95
    assert history.threshold == CRITERION.threshold(0.95)
    assert TrialView(study.trials[1]).violation == CRITERION.violation(0.7, 0.95)


def test_the_first_baseline_counts() -> None:
    study = optuna.create_study()
    calls: list[int] = []
    first, second = Baseline(0.9, 0), Baseline(0.8, 1)
    assert propose_baseline(study, first, before=lambda: calls.append(0)) is first
    assert propose_baseline(study, second, before=lambda: calls.append(1)) == first
    assert get_baseline(study) == first
    assert calls == [0]
