"""Signs of life: how workers that cannot see each other's process tell who still works.

Every worker adds one to a counter in each of its running trials now and then. The others watch
whether the counter moves, by their own clock only, so that clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
import os
import threading
import time
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError
from optuna.logging import get_logger
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study.slow_trials import SlowTrials
from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import is_this_process
from optuna_quant.workers.identity import process_of


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


_logger = get_logger(__name__)

_SIGNS_PER_PATIENCE = 6
_LOOKS_PER_PATIENCE = 3
_LONGEST_INTERVAL_SECONDS = 30.0
_SECONDS_BETWEEN_LOOKUPS = 0.2
_SHORTEST_INTERVAL_SECONDS = 0.05


@dataclass
class _Watched:
    """What one running trial has shown of itself."""

    sign: object
    silent: float  # Seconds, as far as we were looking.
    looked: float


class Watch:
    """Tells which workers have died, from what their running trials show.

    A worker on this machine is looked up among the processes. Any other one is taken for dead
    when its trial has shown no sign of life for ``patience`` seconds. Only time during which this
    process was looking counts, so that a storage that could not be reached for an hour makes
    nobody dead.

    Args:
        patience:
            In seconds. :obj:`None` to take nobody for dead, not even a process of this machine
            that has ended.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._watched: dict[int, _Watched] = {}
        self._living: dict[str, float] = {}  # When each process of this machine was looked up.
        self._lock = threading.Lock()

    def dead(self, running: Mapping[int, FrozenTrial]) -> dict[int, str]:
        """The running trials whose worker has died, by number, each with how that is known.

        Args:
            running:
                All running trials of the study, by number.
        """
        if self._patience is None:
            return {}
        now = time.monotonic()
        found: dict[int, str] = {}
        with self._lock:
            for number in self._watched.keys() - running.keys():
                del self._watched[number]
            for number, trial in running.items():
                worker = TrialView(trial).worker
                if worker is None:
                    beginner = TrialView(trial).started_by
                    if beginner is not None and self._has_ended(beginner, now):
                        found[number] = "its process has ended"
                    continue
                if is_this_process(worker):
                    continue
                if self._has_ended(worker, now):
                    found[number] = "its process has ended"
                elif self._silence(number, trial, now) >= self._patience:
                    found[number] = f"its worker has given no sign of life for {self._patience} s"
        return found

    def _has_ended(self, worker: str, now: float) -> bool:
        process = process_of(worker)
        if now - self._living.get(process, -math.inf) < _SECONDS_BETWEEN_LOOKUPS:
            return False
        if is_known_dead(worker):
            return True
        self._living[process] = now
        return False

    def _silence(self, number: int, trial: FrozenTrial, now: float) -> float:
        sign = TrialView(trial).heartbeat, TrialView(trial).worker
        watched = self._watched.get(number)
        if watched is None or watched.sign != sign:
            self._watched[number] = _Watched(sign, 0.0, now)
            return 0.0
        assert self._patience is not None
        watched.silent += min(now - watched.looked, self._patience / _LOOKS_PER_PATIENCE)
        watched.looked = now
        return watched.silent


def bury(study: optuna.Study, watch: Watch, running: Mapping[int, FrozenTrial]) -> bool:
    """Mark the trials of dead workers as failed; whether there were any."""
    dead = watch.dead(running)
    for number, reason in dead.items():
        if _optuna.fail_trial(study, running[number]):
            _logger.warning(
                f"Trial {number} is marked as failed: {reason}. "
                "Its configuration goes back into the pool."
            )
    return bool(dead)


class SignsOfLife:
    """Gives signs of life for the running trials of this process, in a thread.

    The same thread watches the others, so that somebody notices a death even while all evaluate.

    Args:
        study:
            The study.
        patience:
            For how long the others wait for a sign.
        watch:
            Tells who has died.
    """

    def __init__(self, study: optuna.Study, patience: float | None, watch: Watch) -> None:
        self._study = study
        self._watch = watch
        interval = _LONGEST_INTERVAL_SECONDS
        if patience is not None:
            interval = min(interval, patience / _SIGNS_PER_PATIENCE)
        self._interval = max(interval, _SHORTEST_INTERVAL_SECONDS)
        self._needed = not isinstance(_optuna.study_identity(study)[0], InMemoryStorage)
        self._trials: dict[int, FrozenTrial] = {}
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._slow = SlowTrials()

    def begin(self, trial: FrozenTrial) -> None:
        """Begin to give signs for a trial."""
        if not self._needed:
            return
        if self._process != os.getpid():  # A child does not answer for its parent's trials.
            self._process, self._lock = os.getpid(), threading.Lock()
            self._trials, self._thread = {}, None
        with self._lock:
            self._trials[trial.number] = trial
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="optuna_quant signs of life", daemon=True
                )
                self._thread.start()

    def end(self, number: int) -> None:
        """The trial has ended."""
        self._trials.pop(number, None)

    def _run(self) -> None:
        sign = 0
        while True:
            time.sleep(self._interval)
            with self._lock:
                trials = list(self._trials.values())
                if not trials:
                    self._thread = None
                    return
            sign += 1
            try:
                self._give(trials, sign)
                known = _optuna.all_trials(self._study)
                self._slow.look(known)
                running = {
                    trial.number: trial for trial in known if trial.state == TrialState.RUNNING
                }
                bury(self._study, self._watch, running)
            except Exception as error:  # The storage may be back at the next sign.
                _logger.debug(f"No sign of life could be given: {error!r}")

    def _give(self, trials: list[FrozenTrial], sign: int) -> None:
        for trial in trials:
            if trial.number not in self._trials:
                continue
            try:
                _optuna.set_trial_system_attr(self._study, trial, record.SIGN_OF_LIFE, sign)
            except UpdateFinishedTrialError:
                self.end(trial.number)
