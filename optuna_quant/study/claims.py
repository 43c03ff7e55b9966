"""The claim protocol: a trial's number is its ticket.

A trial claims a configuration only when every running trial with a lower number has claimed its
own. So two workers never choose at the same time, without a lock and on any storage. A trial that
does not say which worker it belongs to is waited for during a grace period only. A claim that may
have come too late is looked at again after it was made, and withdrawn if it is contested.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import time
from typing import TYPE_CHECKING

from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study.started_trial import StartedTrial
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant._common.json_value import Json


_LONGEST_BETWEEN_LOOKS_SECONDS = 0.5
_MOST_BACKWARDS_SECONDS = 0.5


def announce(study: optuna.Study, trial: FrozenTrial) -> None:
    """Say that this worker runs a trial and will claim: the others wait for it."""
    mark: Json = {"number": trial.number, "worker": this_worker()}
    _optuna.set_trial_system_attr(study, trial, record.WORKER, mark)


@contextlib.contextmanager
def failed_if_raised(study: optuna.Study, trial: FrozenTrial) -> Iterator[None]:
    """Fail a trial whose start raises an error.

    The caller then has no trial to tell, and the others would wait for its claim.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            _optuna.fail_trial(study, trial)
        raise


class ClaimQueue:
    """The queue of running trials, which claim configurations in the order of their numbers.

    Args:
        look:
            Reads the record, and gives the running trials by number.
        grace_period:
            How long, in seconds, to wait for a trial that does not say which worker runs it.
    """

    def __init__(
        self, look: Callable[[optuna.Study], Mapping[int, FrozenTrial]], *, grace_period: float
    ) -> None:
        self._look = look
        self._grace_period = grace_period
        self._ignored: set[int] = set()  # Silent for too long, or not ours.

    def wait(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Wait until every earlier running trial has claimed, or has been silent for too long.

        At the end the record has just been read.
        """
        silent_since: dict[int, float] = {}
        backoff = Backoff()
        while True:
            now = time.monotonic()
            waiting_for = self._ahead(self._look(study), trial)
            for other in waiting_for:
                # One that is known to be ours may be computing what all need.
                if StartedTrial(other).worker is None:
                    since = silent_since.setdefault(other.number, now)
                    if now - since >= self._grace_period:
                        self._ignored.add(other.number)
            if not waiting_for:
                return
            # The last of them claims when all before it have.
            _await_claim(study, waiting_for[-1], backoff, ahead=len(waiting_for))

    def _ahead(self, running: Mapping[int, FrozenTrial], trial: FrozenTrial) -> list[FrozenTrial]:
        return [
            other
            for other in running.values()
            if other.number < trial.number
            and other.number not in self._ignored
            and not StartedTrial(other).has_claimed
            and not other.params  # With parameters and no claim it is not ours.
        ]

    def let_later_look(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let later trials claim that have looked before this one was there, or without a claim.

        They may be about to claim without another look; after half the grace period they look.
        """
        until = time.monotonic() + self._grace_period / 2
        backoff = Backoff()
        while time.monotonic() < until:
            later = [
                other
                for other in self._look(study).values()
                if other.number > trial.number and StartedTrial(other).claim is None
            ]
            if not later:
                return
            backoff(ahead=len(later))

    def is_in_time(
        self, trial: FrozenTrial, started: float, running: Mapping[int, FrozenTrial]
    ) -> bool:
        """Whether no other trial can have ceased to wait for this one's claim, nor it for theirs.

        By two clocks: the trial may have been visible long before this process went on with it,
        and its start may be by the clock of another machine. Half the time is kept in reserve.

        Args:
            trial:
                The trial.
            started:
                When it was started at the latest, as :func:`time.monotonic` tells.
            running:
                The running trials, by number.
        """
        if self._ignored & running.keys():
            return False
        if time.monotonic() - started >= self._grace_period / 2 or trial.datetime_start is None:
            return False
        age = time.time() - trial.datetime_start.timestamp()
        return -_MOST_BACKWARDS_SECONDS < age < self._grace_period / 2


def is_claimed_twice(claim: record.Claim, running: Mapping[int, FrozenTrial]) -> bool:
    """Whether another running trial has claimed the same configuration."""
    return any(
        theirs is not None and theirs.key == claim.key and number != claim.number
        for number, other in running.items()
        for theirs in (StartedTrial(other).claim,)
    )


def _await_claim(study: optuna.Study, other: FrozenTrial, backoff: Backoff, *, ahead: int) -> None:
    """Wait a little, until another trial has claimed if that is cheap to see."""
    until = time.monotonic() + _LONGEST_BETWEEN_LOOKS_SECONDS
    while True:
        backoff(ahead=ahead)
        attrs = _optuna.quick_system_attrs(study, other)
        if attrs is None or attrs.get(record.CLAIM) or time.monotonic() >= until:
            return
