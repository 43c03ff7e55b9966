"""For how long to wait for a trial that another worker runs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from functools import cached_property
import time
from typing import TYPE_CHECKING

from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


class Waiting:
    """Says whether it is still worth waiting for other trials, and paces the looking.

    A trial whose process has ended is not waited for, nor is one that this very thread has asked
    for and not told (it cannot end while we wait). One that another thread of this process is
    running is, however long it takes. All others get their time, anew with each sign of life.

    Args:
        is_at_work:
            Whether the trial of a number is being run by this process.
        patience:
            Gives how long, in seconds, to wait for a trial that has begun; called when one is.
        grace_period:
            How long, in seconds, to wait for a trial that shows no sign of having begun.
        given_up:
            The trials, by number and sign of life, for which nobody needs to wait any more;
            added to.
    """

    def __init__(
        self,
        *,
        is_at_work: Callable[[int], bool],
        patience: Callable[[], float],
        grace_period: float,
        given_up: set[tuple[int, bool]],
    ) -> None:
        self._is_at_work = is_at_work
        self._find_patience = patience
        self._grace_period = grace_period
        self._given_up = given_up
        self._since: dict[tuple[int, bool], tuple[float, object]] = {}
        self._pause = _FIRST_PAUSE_SECONDS

    @cached_property
    def _patience(self) -> float:
        return self._find_patience()

    def is_for(self, begun: Iterable[FrozenTrial], silent: Iterable[FrozenTrial] = ()) -> bool:
        """Whether any of these running trials may still end, or begin, in time."""
        # Not any(): the time of each runs from when it is first looked at.
        found = [self._is_worthwhile(trial, True) for trial in begun]
        found += [self._is_worthwhile(trial, False) for trial in silent]
        return any(found)

    def _is_worthwhile(self, trial: FrozenTrial, has_begun: bool) -> bool:
        if self._is_at_work(trial.number):
            return True
        claim = TrialView(trial).claim
        if claim is not None and (claim.worker == this_worker() or is_known_dead(claim.worker)):
            return False
        has_begun = has_begun and bool(claim or trial.params)
        key = (trial.number, has_begun)
        if key in self._given_up:
            return False
        now = time.monotonic()
        sign = TrialView(trial).heartbeat
        since, last = self._since.get(key, (now, sign))
        if last != sign and has_begun:
            since = now
        self._since[key] = since, sign
        if now - since < (self._patience if has_begun else self._grace_period):
            return True
        self._given_up.add(key)
        return False

    def pause(self) -> None:
        """Sleep a little, longer each time."""
        time.sleep(self._pause)
        self._pause = min(1.5 * self._pause, _LONGEST_PAUSE_SECONDS)
