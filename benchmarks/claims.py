"""The claim protocol with up to 1,000 workers that begin in the same instant.

Each worker is a thread with its own sampler and its own view of the study; the storage answers
every call after 2 ms, as a database over a network does, any number of calls at a time. Shown is
the time until the last worker has its configuration, and the calls each of them made for it. All
claims are made one after the other, so that the time grows with the workers; a call costs what it
costs on a real server, so that the number of calls must not.
"""

from __future__ import annotations

import os
from pathlib import Path
import threading
import time
from typing import Any

import optuna
from optuna.storages import InMemoryStorage

from benchmarks.spaces import make_space
from optuna_quant import record
from optuna_quant.samplers import ExhaustiveQuantSampler


LATENCY_SECONDS = 0.002
OPS = 30


class _FarStorage(InMemoryStorage):
    """A storage in memory that takes its time, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def _travel(self) -> None:
        self.calls += 1
        time.sleep(LATENCY_SECONDS)

    def get_all_trials(self, *args: Any, **kwargs: Any) -> Any:
        self._travel()
        return super().get_all_trials(*args, **kwargs)

    def create_new_trial(self, *args: Any, **kwargs: Any) -> int:
        self._travel()
        return super().create_new_trial(*args, **kwargs)

    def set_trial_system_attr(self, *args: Any, **kwargs: Any) -> None:
        self._travel()
        super().set_trial_system_attr(*args, **kwargs)


def _run(workers: int) -> None:
    space = make_space(OPS)
    storage = _FarStorage()
    name = optuna.create_study(storage=storage, direction="maximize").study_name
    begin = threading.Barrier(workers + 1)

    def work() -> None:
        sampler = ExhaustiveQuantSampler(space)
        study = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
        begin.wait()
        study.ask()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    begin.wait()
    storage.calls, started = 0, time.perf_counter()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    trials = optuna.load_study(storage=storage, study_name=name).get_trials(deepcopy=False)
    claims = [claim for trial in trials if (claim := record.claim_of(trial)) is not None]
    assert len({claim.key for claim in claims}) == workers, "two claimed the same"
    print(
        f"{workers:5} workers: all have claimed after {taken:6.2f} s, "
        f"{1e3 * taken / workers:5.1f} ms each; {storage.calls / workers:5.1f} calls each",
        flush=True,
    )


def run(cases: Path | None) -> None:
    for workers in map(int, os.environ.get("WORKERS", "1,10,100,1000").split(",")):
        _run(workers)
