"""Report, once, a trial that takes so long that it may hang."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import statistics
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers.identity import host_of
from optuna_quant.workers.identity import is_this_process


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_logger = get_logger(__name__)

_SHORTEST_SECONDS = 60.0
_TIMES_THE_MEDIAN = 10.0
_TIMES_THE_LONGEST = 2.0
# Of the first evaluation nothing is known but that people look at the clock.
_WITHOUT_OTHERS_SECONDS = 600.0


def suspicious_after(trials: Sequence[FrozenTrial]) -> tuple[float, str]:
    """After how many seconds a trial is suspiciously long, and what that is compared with."""
    times = [
        trial.duration.total_seconds()
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and trial.duration is not None
        and TrialView(trial).reused_from is None
    ]
    if not times:
        return _WITHOUT_OTHERS_SECONDS, "no other trial has finished"
    median, longest = statistics.median(times), max(times)
    limit = max(_SHORTEST_SECONDS, _TIMES_THE_MEDIAN * median, _TIMES_THE_LONGEST * longest)
    return limit, f"others took {median:.2g} s, {longest:.2g} s at most"


class SlowTrials:
    """Reports trials of other processes that block all others.

    By the clock of this process: a trial's time is counted from when it was first seen.

    Args:
        clock:
            Gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[int, float] = {}
        self._told: set[int] = set()

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Log a line if the first of the running trials takes suspiciously long.

        Those after it may be waiting for it.

        Args:
            trials:
                All trials of the study.
        """
        now = self._clock()
        running = [t for t in trials if t.state == TrialState.RUNNING and TrialView(t).claim]
        since = {t.number: self._seen.get(t.number, now) for t in running}
        self._seen = since
        if not running:
            return
        first = running[0]
        worker = TrialView(first).worker or ""
        if first.number in self._told or is_this_process(worker):
            return
        seconds = now - since[first.number]
        if seconds < _SHORTEST_SECONDS:
            return
        limit, compared = suspicious_after(trials)
        if seconds >= limit:
            self._told.add(first.number)
            what = f"Trial {first.number} of another worker, on {host_of(worker)!r},"
            _logger.warning(long_evaluation(what, seconds, compared))


def long_evaluation(what: str, seconds: float, compared: str) -> str:
    """The message about an evaluation that takes suspiciously long.

    Args:
        what:
            What is evaluated.
        seconds:
            For how long.
        compared:
            What that is compared with.
    """
    return (
        f"{what} has been running for {_duration(seconds)} ({compared}). Others may be waiting "
        "for it; evaluation_timeout=SECONDS (--evaluation-timeout) ends such evaluations."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
