"""Trials whose worker has died are failed, and their claims are free again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import time

from four_ops import create
from four_ops import finish
from four_ops import metric
from four_ops import silent_trial
import optuna
from optuna.trial import TrialState
import pytest
from spaces import keys
from spaces import make_space
from spaces import objective_of

from optuna_quant import _optuna
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.space.space import TuningSpace
from optuna_quant.storages.trial_starts import STARTED_BY
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers import identity


@pytest.fixture
def space() -> TuningSpace:
    return make_space(4)


@pytest.fixture
def reference(space: TuningSpace) -> list[str]:
    """What one undisturbed process evaluates."""
    study = create(BasicQuantSampler(space))
    finish(study, space)
    return keys(study, space)


def fake_worker(study: optuna.Study, trial: optuna.Trial, worker: str) -> None:
    """Let a running trial seem to be another worker's."""
    claim = TrialView(study.trials[trial.number]).claim
    frozen = study.trials[trial.number]
    mark = {"number": trial.number, "worker": worker}
    _optuna.set_trial_system_attr(study, frozen, record.WORKER, mark)
    changed = dataclasses.replace(claim, worker=worker)
    _optuna.set_trial_system_attr(study, frozen, record.CLAIM, changed.to_attr())


def test_claims_from_before_a_reboot_are_taken_back(
    space: TuningSpace, reference: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_host", lambda: "here machine boot2 ns")
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)
    fake_worker(study, study.ask(), "here machine boot1 ns|1|77|5")
    study.sampler = BasicQuantSampler(space)
    finish(study, space)
    assert study.trials[1].state == TrialState.FAIL
    assert keys(study, space) == reference


def test_claims_of_workers_elsewhere_are_respected_for_a_time(
    space: TuningSpace, reference: list[str]
) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)
    fake_worker(study, study.ask(), "elsewhere machine boot ns|1|77|5")
    study.sampler = BasicQuantSampler(space, claim_timeout=0.5)
    study.optimize(objective_of(space, metric), n_trials=1)
    assert study.trials[1].state == TrialState.RUNNING  # It may live.
    for _ in range(3):
        time.sleep(0.2)
        study.sampler.is_exhausted(study)
        study.optimize(objective_of(space, metric), n_trials=1)
    assert study.trials[1].state == TrialState.FAIL
    finish(study, space)
    # Until then, what would follow was guessed.
    assert set(reference) <= set(keys(study, space))
    assert len(set(keys(study, space))) == len(keys(study, space))


def test_trial_whose_worker_died_before_it_could_say_whose_it_is_is_reaped(
    space: TuningSpace,
) -> None:
    study = create(BasicQuantSampler(space))
    silent_trial(study)
    worker = f"{identity._host()}|999999999|1|5|name"
    _optuna.set_trial_system_attr(study, study.trials[0], STARTED_BY, worker)
    started = time.monotonic()
    study.optimize(objective_of(space, metric), n_trials=1)
    assert time.monotonic() - started < 4  # The grace period is 5 s.
    assert study.trials[0].state == TrialState.FAIL


def test_who_began_a_trial_is_not_asked_of_one_that_repeats_another(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space, grace_period=0.1))
    silent_trial(study)
    worker = f"{identity._host()}|999999999|1|5|name"
    _optuna.set_trial_system_attr(study, study.trials[0], STARTED_BY, worker)
    _optuna.set_trial_system_attr(study, study.trials[0], "failed_trial", 7)
    study.optimize(objective_of(space, metric), n_trials=1)
    assert study.trials[0].state == TrialState.RUNNING


def test_a_trial_of_this_process_is_not_stale(tmp_path: Path) -> None:
    space = make_space(3)
    study = optuna.create_study(direction="maximize", sampler=ExhaustiveQuantSampler(space))
    first = study.ask()
    study.sampler = ExhaustiveQuantSampler(space)
    study.ask()
    assert study.trials[first.number].state == TrialState.RUNNING
