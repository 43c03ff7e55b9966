"""Workers of one study under a clock and an order of events that a seed decides.

Each worker is a thread with a sampler and a storage object of its own; all storage objects show
the same data. One thread runs at a time, up to its next storage call or pause. Before and after
each call it may be held up, sometimes for longer than others wait for it, and it may die there.
Nothing really sleeps, so that hundreds of orders can be tried in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
import heapq
import itertools
import random
import threading
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers._engine import base
from optuna_quant.samplers._engine import conclusion
from optuna_quant.samplers._engine import session
from optuna_quant.samplers._engine import trial_history
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import claims
from optuna_quant.study import liveness
from optuna_quant.workers import backoff
from optuna_quant.workers import heartbeat


_BEGIN = 1_700_000_000.0
_LONGEST_SECONDS = 5_000.0
_CALLS = [
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "set_study_system_attr",
    "set_study_user_attr",
    "get_all_trials",
]


class Killed(BaseException):
    """A worker's process has ended: nothing that it would still do happens."""


class Clock:
    """Gives one thread after the other its turn, in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order = random.Random(0)
        self._queue: list[tuple[float, float, int, str]] = []
        self._counter = itertools.count()
        self._turns: dict[str, threading.Semaphore] = {}
        self._ended = threading.Semaphore(0)
        self.errors: list[BaseException] = []

    # What the library sees in place of the module "time".

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return _BEGIN + self.now

    def sleep(self, seconds: float) -> None:
        name = threading.current_thread().name
        if name not in self._turns:
            return
        self._enter(name, seconds)
        self._go_on()
        self._turns[name].acquire()

    # The threads.

    def begin(self, name: str, work: Callable[[], None], delay: float) -> None:
        """Add a thread; it has its first turn after ``delay`` seconds."""
        turn = self._turns[name] = threading.Semaphore(0)

        def run() -> None:
            turn.acquire()
            try:
                work()
            except BaseException as error:
                self.errors.append(error)
            self._go_on()

        threading.Thread(target=run, name=name, daemon=True).start()
        self._enter(name, delay)

    def run(self) -> None:
        """Run all threads to their end."""
        self._go_on()
        assert self._ended.acquire(timeout=60), "a thread hangs"
        for error in self.errors:
            raise error

    def _enter(self, name: str, delay: float) -> None:
        heapq.heappush(
            self._queue, (self.now + delay, self.order.random(), next(self._counter), name)
        )

    def _go_on(self) -> None:
        if not self._queue or self.errors:
            self._ended.release()
            return
        then, _, _, name = heapq.heappop(self._queue)
        self.now = max(self.now, then)
        if self.now > _LONGEST_SECONDS:
            self.errors.append(AssertionError("the study does not come to its end"))
            self._ended.release()
            return
        self._turns[name].release()


@dataclass(frozen=True)
class Hazards:
    """What happens to the workers.

    Args:
        stall:
            How probable it is that a storage call takes long.
        longest:
            How long it then takes at most, in seconds.
        death:
            How probable it is that a worker dies at a call.
        most_deaths:
            How many workers die at most.
        queued:
            How probable it is that a worker puts a trial into the queue, with a parameter that
            is not the space's, before it asks for one.
    """

    stall: float = 0.03
    longest: float = 12.0
    death: float = 0.0
    most_deaths: int = 0
    queued: float = 0.0


@dataclass
class Evaluation:
    """One evaluation that has started."""

    number: int
    key: str
    worker: str
    is_ended: bool = False


@dataclass
class Simulation:
    """A study and its workers.

    Args:
        space:
            The tuning space.
        new_sampler:
            Makes the sampler of a worker.
        metric:
            The metric of a configuration.
        seed:
            The order of events.
        hazards:
            What happens to the workers.
    """

    space: TuningSpace
    new_sampler: Callable[[], QuantSampler]
    metric: Callable[[QuantConfig], float]
    seed: int
    hazards: Hazards = field(default_factory=Hazards)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.clock.order.seed(self.seed)
        self.evaluations: list[Evaluation] = []
        self.dead: set[str] = set()
        self._data = InMemoryStorage()
        self.study = optuna.create_study(
            storage=self._data, study_name="study", direction="maximize"
        )
        self._numbers = itertools.count()

    def run(self, workers: int, patch: pytest.MonkeyPatch) -> None:
        """Let workers work until the strategy has nothing left."""
        random.seed(self.seed)

        def this_worker() -> str:
            return threading.current_thread().name

        for module in (base, conclusion, claims, liveness, backoff, heartbeat):
            patch.setattr(module, "time", self.clock)
        patch.setattr(backoff, "_jitter", random.uniform)
        for module in (conclusion, session, trial_history, claims):
            patch.setattr(module, "this_worker", this_worker)
        patch.setattr(liveness, "is_this_process", lambda worker: worker == this_worker())
        patch.setattr(liveness, "is_known_dead", self.dead.__contains__)
        for _ in range(workers):
            self._begin()
        self.clock.run()

    @property
    def complete(self) -> list[FrozenTrial]:
        """The complete trials."""
        return [t for t in self.study.trials if t.state == TrialState.COMPLETE]

    def _begin(self) -> None:
        name = f"worker {next(self._numbers)}"
        self.clock.begin(name, lambda: self._work(name), self.clock.order.uniform(0.0, 0.1))

    def _work(self, name: str) -> None:
        storage = _View(self, self._data)
        sampler = self.new_sampler()
        try:
            study = optuna.load_study(study_name="study", storage=storage, sampler=sampler)
            while not sampler.is_exhausted(study):
                self._evaluate(study, name)
        except Killed:
            self._begin()

    def _evaluate(self, study: optuna.Study, name: str) -> None:
        if self.hazards.queued and self.clock.order.random() < self.hazards.queued:
            study.enqueue_trial({"rate": self.clock.order.random()})
        trial = study.ask()
        config = self.space.suggest(trial)
        mine = Evaluation(trial.number, config.key, name)
        self.evaluations.append(mine)
        self.clock.sleep(self.clock.order.choice((0.01, 0.3, 3.0)))
        self.passing(name)
        mine.is_ended = True
        study.tell(trial, self.metric(config))

    def passing(self, name: str) -> None:
        """A worker is at the start or the end of a call."""
        if name in self.dead:
            raise Killed
        order = self.clock.order
        if order.random() < self.hazards.death and len(self.dead) < self.hazards.most_deaths:
            self.dead.add(name)
            raise Killed
        stalled = order.random() < self.hazards.stall
        self.clock.sleep(order.uniform(0.0, self.hazards.longest if stalled else 0.02))
        if name in self.dead:
            raise Killed


class _View(InMemoryStorage):
    """One worker's way to the data."""

    def __init__(self, simulation: Simulation, data: InMemoryStorage) -> None:
        self.__dict__ = data.__dict__
        self._simulation = simulation

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in _CALLS or threading.current_thread() is threading.main_thread():
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            worker = threading.current_thread().name
            simulation = self._simulation
            simulation.passing(worker)
            result = found(*args, **kwargs)
            is_started = TrialState.RUNNING in args[1:] and result is True
            if name == "create_new_trial" or (name == "set_trial_state_values" and is_started):
                trial = self._get_trial(result if name == "create_new_trial" else args[0])
                if trial.state == TrialState.RUNNING:
                    trial.datetime_start = datetime.fromtimestamp(simulation.clock.time())
            simulation.passing(worker)
            return result

        return call
