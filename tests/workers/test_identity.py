from __future__ import annotations

import os
import subprocess
import sys

import pytest

from optuna_quant.workers import identity
from optuna_quant.workers.identity import host_of
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import is_this_process
from optuna_quant.workers.identity import process_of
from optuna_quant.workers.identity import this_worker


CODE = "from optuna_quant.workers.identity import this_worker; print(this_worker())"


@pytest.fixture(scope="module")
def ended() -> str:
    """A worker that has ended."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_this_process_lives() -> None:
    assert is_this_process(this_worker())
    assert not is_known_dead(this_worker())


def test_a_process_that_has_ended_is_known_to_be_dead(ended: str) -> None:
    assert not is_this_process(ended)
    assert is_known_dead(ended)


def test_a_number_that_was_given_again_is_another_process() -> None:
    host, pid, started, thread = this_worker().split("|")
    assert pid == str(os.getpid())
    assert is_known_dead(f"{host}|{pid}|{int(started) - 1}|{thread}")


def test_nothing_is_known_of_processes_on_other_machines(ended: str) -> None:
    _, rest = ended.split("|", 1)
    assert not is_known_dead(f"elsewhere 1234 5678 pid:[1]|{rest}")
    assert not is_known_dead("what another version wrote")


def test_a_machine_that_was_started_again_has_ended_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "_host", lambda: "here machine boot2 ns")
    assert is_known_dead("here machine boot1 ns|1|2|3")
    assert not is_known_dead("here another boot1 ns|1|2|3")


def test_threads_of_a_process_are_workers_of_one_process() -> None:
    worker = this_worker()
    assert process_of(worker) == process_of(f"{process_of(worker)}|0")
    assert is_this_process(f"{process_of(worker)}|0")
    assert host_of(worker) == worker.split(" ")[0]
