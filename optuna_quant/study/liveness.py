"""Detect running trials whose worker has died, by heartbeats.

Every worker adds one to a counter in each of its running trials now and then. A process on the
same machine is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from optuna_quant.study.started_trial import StartedTrial
from optuna_quant.workers.heartbeat import HeartbeatMonitor
from optuna_quant.workers.heartbeat import HeartbeatThread
from optuna_quant.workers.heartbeat import heartbeat_interval
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import is_this_process
from optuna_quant.workers.identity import process_of


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


_logger = get_logger(__name__)

_SECONDS_BETWEEN_LOOKUPS = 0.2


class TrialMonitor:
    """Tells which running trials are stale: their worker has died.

    A worker on this machine is looked up among the processes. The trial of any other one is stale
    when its heartbeat has not changed for ``timeout`` seconds.

    Args:
        timeout:
            In seconds. :obj:`None` if no trial is ever stale, not even that of a process of this
            machine that has ended.
    """

    def __init__(self, timeout: float | None) -> None:
        self._heartbeats = None if timeout is None else HeartbeatMonitor(timeout)
        self._living: dict[str, float] = {}  # When each process of this machine was looked up.
        self._lock = threading.Lock()

    def stale(self, running: Mapping[int, FrozenTrial]) -> dict[int, str]:
        """The stale trials, by number, each with how that is known.

        Args:
            running:
                All running trials of the study, by number.
        """
        if self._heartbeats is None:
            return {}
        with self._lock:
            self._heartbeats.forget_all_but(running.keys())
            found = {n: self._why_stale(trial, self._heartbeats) for n, trial in running.items()}
        return {number: reason for number, reason in found.items() if reason is not None}

    def _why_stale(self, trial: FrozenTrial, heartbeats: HeartbeatMonitor) -> str | None:
        view = StartedTrial(trial)
        worker = view.worker
        if worker is None:
            starter = view.started_by
            has_ended = starter is not None and self._has_ended(starter)
            return "its process has ended" if has_ended else None
        if is_this_process(worker):
            return None
        if self._has_ended(worker):
            return "its process has ended"
        if heartbeats.is_stale(trial.number, view.heartbeat):
            return f"its worker has written no heartbeat for {heartbeats.timeout} s"
        return None

    def _has_ended(self, worker: str) -> bool:
        process, now = process_of(worker), time.monotonic()
        if now - self._living.get(process, -math.inf) < _SECONDS_BETWEEN_LOOKUPS:
            return False
        if is_known_dead(worker):
            return True
        self._living[process] = now
        return False


def reap(study: optuna.Study, monitor: TrialMonitor, running: Mapping[int, FrozenTrial]) -> bool:
    """Mark stale trials as failed; whether there were any."""
    stale = monitor.stale(running)
    for number, reason in stale.items():
        if _optuna.fail_trial(study, running[number]):
            _logger.warning(
                f"Trial {number} is marked as failed: {reason}. Its configuration is free again."
            )
    return bool(stale)


class TrialHeartbeats:
    """Writes heartbeats for the running trials of this process, in a thread.

    The same thread reaps the trials of others, so that a death is noticed even while all evaluate.

    Args:
        study:
            The study.
        timeout:
            For how long the others wait for a heartbeat.
        monitor:
            Tells which trials of others are stale.
    """

    def __init__(self, study: optuna.Study, timeout: float | None, monitor: TrialMonitor) -> None:
        self._study = study
        self._monitor = monitor
        self._interval = heartbeat_interval(timeout)
        self._needed = not isinstance(_optuna.study_identity(study)[0], InMemoryStorage)
        self._trials: dict[int, FrozenTrial] = {}
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._thread: HeartbeatThread | None = None
        self._count = 0
        self._slow = SlowTrials()

    def start(self, trial: FrozenTrial) -> None:
        """Write heartbeats for a trial from now on."""
        if not self._needed:
            return
        if self._process != os.getpid():  # A child does not answer for its parent's trials.
            self._process, self._lock = os.getpid(), threading.Lock()
            self._trials, self._thread = {}, None
        with self._lock:
            self._trials[trial.number] = trial
            if self._thread is None:
                self._thread = HeartbeatThread(
                    self._beat, interval=self._interval, name="optuna_quant heartbeats"
                )
                self._thread.start()

    def end(self, number: int) -> None:
        """The trial has ended."""
        self._trials.pop(number, None)

    def _beat(self) -> None:
        with self._lock:
            trials = list(self._trials.values())
            if not trials:
                assert self._thread is not None
                self._thread.stop()
                self._thread = None
                return
        self._count += 1
        for trial in trials:
            self._write(trial)
        known = _optuna.all_trials(self._study)
        self._slow.look(known)
        running = {trial.number: trial for trial in known if trial.state == TrialState.RUNNING}
        reap(self._study, self._monitor, running)

    def _write(self, trial: FrozenTrial) -> None:
        if trial.number not in self._trials:
            return
        try:
            _optuna.set_trial_system_attr(self._study, trial, record.HEARTBEAT, self._count)
        except UpdateFinishedTrialError:
            self.end(trial.number)
