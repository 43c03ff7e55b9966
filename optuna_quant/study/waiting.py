"""Decide how long to wait for a trial that another worker runs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.study.started_trial import StartedTrial
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.heartbeat import HeartbeatMonitor
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_FIRST_PAUSE_SECONDS = 0.02


class Waiting:
    """Tells whether to keep waiting for other trials, and paces the checks.

    A trial whose process has ended is not waited for, nor is one that this very thread has asked
    for and not told (it cannot end while we wait). One that another thread of this process is
    running is, however long it takes. All others get that time, and again with each heartbeat.

    Args:
        is_at_work:
            Whether the trial of a number is being run by this process.
        timeout:
            Gives how long, in seconds, to wait for a trial that has started; called when one has.
        grace_period:
            How long, in seconds, to wait for a trial that does not show that it has started.
        given_up:
            The trials, by number and whether they had started, that are not waited for any more;
            added to.
    """

    def __init__(
        self,
        *,
        is_at_work: Callable[[int], bool],
        timeout: Callable[[], float],
        grace_period: float,
        given_up: set[tuple[int, bool]],
    ) -> None:
        self._is_at_work = is_at_work
        self._find_timeout = timeout
        self._given_up = given_up
        self._silent = HeartbeatMonitor(grace_period)
        self._backoff = Backoff(first=_FIRST_PAUSE_SECONDS)

    @cached_property
    def _started(self) -> HeartbeatMonitor:
        return HeartbeatMonitor(self._find_timeout())

    def is_for(self, started: Iterable[FrozenTrial], silent: Iterable[FrozenTrial] = ()) -> bool:
        """Whether any of these running trials may still end, or start, in time."""
        # Not any(): the time of each runs from when it is first looked at.
        found = [self._is_worthwhile(trial, True) for trial in started]
        found += [self._is_worthwhile(trial, False) for trial in silent]
        return any(found)

    def _is_worthwhile(self, trial: FrozenTrial, has_started: bool) -> bool:
        if self._is_at_work(trial.number):
            return True
        claim = StartedTrial(trial).claim
        if claim is not None and (claim.worker == this_worker() or is_known_dead(claim.worker)):
            return False
        has_started = has_started and bool(claim or trial.params)
        key = (trial.number, has_started)
        if key in self._given_up:
            return False
        if has_started:
            is_stale = self._started.is_stale(trial.number, StartedTrial(trial).heartbeat)
        else:
            is_stale = self._silent.is_stale(trial.number, None)
        if is_stale:
            self._given_up.add(key)
        return not is_stale

    def pause(self) -> None:
        """Sleep a little, longer each time."""
        self._backoff()
