"""The running trials of an objective, and how long they wait for other workers."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.study.waiting import Waiting


if TYPE_CHECKING:
    import optuna


class RunningTrials:
    """The trials that this process runs, by study.

    Args:
        wait_timeout:
            How long, in seconds, to wait for a trial that has started but writes no heartbeat;
            three times the longest trial if that is longer.
        grace_period:
            How long, in seconds, to wait for a trial that shows no sign of having started.

    Raises:
        ValueError:
            If one of them is negative.
    """

    def __init__(self, *, wait_timeout: float, grace_period: float) -> None:
        for name, value in (("wait_timeout", wait_timeout), ("grace_period", grace_period)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, but got {value}.")
        self._wait_timeout = wait_timeout
        self._grace_period = grace_period
        self._at_work: set[tuple[str, int]] = set()
        self._given_up: dict[str, set[tuple[int, bool]]] = {}

    @contextlib.contextmanager
    def at_work(self, trial: optuna.Trial) -> Iterator[None]:
        """Run a trial in this block."""
        place = (trial.study.study_name, trial.number)
        self._at_work.add(place)
        try:
            yield
        finally:
            self._at_work.discard(place)

    def waiting(self, study: optuna.Study) -> Waiting:
        """What says whether to wait for trials of a study."""
        name = study.study_name

        def timeout() -> float:
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            times = (t.duration.total_seconds() for t in finished if t.duration)
            return max(self._wait_timeout, 3 * max(times, default=0.0))

        return Waiting(
            is_at_work=lambda number: (name, number) in self._at_work,
            timeout=timeout,
            grace_period=self._grace_period,
            given_up=self._given_up.setdefault(name, set()),
        )

    def forget(self, study: optuna.Study) -> None:
        """Forget the trials of a study that no thread waits for any more."""
        self._given_up.pop(study.study_name, None)
