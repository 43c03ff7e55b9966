"""Waiting for the trials that other workers are still at when a search is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys
import threading
import time

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_quant import _optuna
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.drain import await_last_trials
from optuna_quant.study.drain import others_running
from optuna_quant.workers.identity import _host
from optuna_quant.workers.identity import _start_time


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(tmp_path / "journal"))


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(250)"])
    yield process
    process.kill()
    process.wait()


def begin_elsewhere(study: optuna.Study, worker: str) -> FrozenTrial:
    number = study.ask().number
    trial = study.trials[number]
    mark = {"number": trial.number, "worker": worker}
    _optuna.set_trial_system_attr(study, trial, record.WORKER, mark)
    return trial


def worker_of(process: subprocess.Popen[bytes]) -> str:
    return f"{_host()}|{process.pid}|{_start_time(process.pid)}|1"


def test_nothing_is_waited_for_where_nothing_runs(study: optuna.Study) -> None:
    study.tell(study.ask(), 1.0)
    study.ask()  # Of no worker of ours.
    assert not await_last_trials(study, others_running(study))


def test_living_worker_is_waited_for(study: optuna.Study, other: subprocess.Popen[bytes]) -> None:
    number = begin_elsewhere(study, worker_of(other)).number

    def end_it() -> None:
        time.sleep(0.5)
        study.tell(number, 1.0)

    ending = threading.Thread(target=end_it)
    ending.start()
    assert await_last_trials(study, others_running(study))
    assert study.trials[number].state == TrialState.COMPLETE
    ending.join()


def test_worker_that_goes_on_is_not_waited_for_again(
    study: optuna.Study, other: subprocess.Popen[bytes]
) -> None:
    first = begin_elsewhere(study, worker_of(other)).number
    last = others_running(study)
    study.tell(first, 1.0)
    begin_elsewhere(study, worker_of(other))
    assert not await_last_trials(study, last)


def test_dead_worker_is_not_waited_for(
    study: optuna.Study, other: subprocess.Popen[bytes]
) -> None:
    number = begin_elsewhere(study, worker_of(other)).number
    other.kill()
    other.wait()
    assert await_last_trials(study, others_running(study))
    assert study.trials[number].state == TrialState.FAIL


def test_silent_worker_of_another_machine_is_not_waited_for(study: optuna.Study) -> None:
    number = begin_elsewhere(study, "elsewhere - - -|1|1|1").number
    assert await_last_trials(study, others_running(study), timeout=0.3)
    assert study.trials[number].state == TrialState.FAIL
