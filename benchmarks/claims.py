"""The claim protocol with up to 1,000 workers that begin in the same instant: a simulation.

Each worker has its own sampler and its own view of the study; the storage answers every call after
2 ms, as a database over a network does, any number of calls at a time. The clock is simulated: a
worker's own computing counts for it alone, as if each had a core, and its pauses cost nothing.
Shown is the time until the last worker has its configuration, and the calls each of them made for
it. Claims are made one after the other, so that the time grows with the workers; each call is work
for the server, so that their number per worker must not.
"""

from __future__ import annotations

from collections.abc import Callable
import heapq
import itertools
import os
from pathlib import Path
import threading
import time
from typing import Any
from unittest import mock

import optuna
from optuna.storages import InMemoryStorage

from benchmarks.spaces import make_space
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers._engine import base
from optuna_quant.study import claims as claims_of_study
from optuna_quant.study import liveness
from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers import backoff
from optuna_quant.workers import heartbeat


LATENCY_SECONDS = 0.002
OPS = 30


class _Clock:
    """Stands in for the module ``time``; one thread runs at a time, the earliest first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._offset = time.time()
        self._queue: list[tuple[float, int, threading.Semaphore]] = []
        self._count = itertools.count()
        self._began = 0.0
        self._running = 0
        self._over = threading.Event()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self._offset + self.now

    def sleep(self, seconds: float) -> None:
        turn = threading.Semaphore(0)
        used = time.perf_counter() - self._began
        heapq.heappush(self._queue, (self.now + used + seconds, next(self._count), turn))
        self._next()
        turn.acquire()
        self._began = time.perf_counter()

    def run(self, actions: list[Callable[[], None]]) -> None:
        """Run all to their end."""
        self._running = len(actions)
        for action in actions:
            turn = threading.Semaphore(0)
            heapq.heappush(self._queue, (0.0, next(self._count), turn))
            threading.Thread(target=self._work, args=(action, turn), daemon=True).start()
        self._next()
        self._over.wait()

    def _work(self, action: Callable[[], None], turn: threading.Semaphore) -> None:
        turn.acquire()
        self._began = time.perf_counter()
        try:
            action()
        finally:
            self._running -= 1
            if self._queue:
                self._next()
            else:
                self._over.set()

    def _next(self) -> None:
        then, _, turn = heapq.heappop(self._queue)
        self.now = max(self.now, then)
        turn.release()


class _FarStorage(InMemoryStorage):
    """A storage in memory that takes its time, and counts."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self.calls = 0
        self._clock = clock
        self.counts = False

    def _travel(self) -> None:
        if self.counts:
            self.calls += 1
            self._clock.sleep(LATENCY_SECONDS)

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
    clock = _Clock()
    storage = _FarStorage(clock)
    name = optuna.create_study(storage=storage, direction="maximize").study_name
    ends: list[float] = []

    def work() -> None:
        sampler = ExhaustiveQuantSampler(space)
        study = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
        study.ask()
        ends.append(clock.now)

    storage.counts = True
    with (
        mock.patch.object(base, "time", clock),
        mock.patch.object(claims_of_study, "time", clock),
        mock.patch.object(heartbeat, "time", clock),
        mock.patch.object(backoff, "time", clock),
        mock.patch.object(liveness, "time", clock),
    ):
        clock.run([work] * workers)
    storage.counts = False
    trials = optuna.load_study(storage=storage, study_name=name).get_trials(deepcopy=False)
    claims = [claim for trial in trials if (claim := TrialView(trial).claim) is not None]
    assert len({claim.key for claim in claims}) == workers, "two claimed the same"
    print(
        f"{workers:5} workers: all have claimed after {max(ends):6.2f} s, "
        f"{1e3 * max(ends) / workers:5.1f} ms each; {storage.calls / workers:5.1f} calls each",
        flush=True,
    )


def run(cases: Path | None) -> None:
    for workers in map(int, os.environ.get("WORKERS", "1,10,100,1000").split(",")):
        _run(workers)
