"""Wait for the last trials of other workers, so that all conclude from the same record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.study.liveness import TrialMonitor
from optuna_quant.study.liveness import reap
from optuna_quant.study.slow_trials import SlowTrials
from optuna_quant.study.started_trial import StartedTrial
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.identity import is_this_process


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


_logger = get_logger(__name__)

_TIMEOUT_SECONDS = 180.0
_SAY_SECONDS = 5.0


def others_running(study: optuna.Study) -> frozenset[int]:
    """The numbers of the trials that other workers run."""
    return frozenset(_running(study))


def await_last_trials(
    study: optuna.Study,
    numbers: frozenset[int],
    *,
    timeout: float | None = _TIMEOUT_SECONDS,
) -> bool:
    """Wait until other workers have ended their trials.

    To be called when the study is to stop: the others stop, too, after the trial that they are
    at. Those trials may hold the best result, and without them each worker would give another
    answer. A worker that goes on, because it has other limits, is not waited for again.

    Args:
        study:
            The study.
        numbers:
            The trials to wait for, as :func:`others_running` gave them at the first stop.
        timeout:
            After how many seconds without a heartbeat a trial on another machine is stale;
            :obj:`None` if none ever is. A death on this machine is noticed at once.

    Returns:
        Whether there was any trial to wait for.
    """
    monitor, backoff, slow = TrialMonitor(timeout), Backoff(), SlowTrials()
    started = time.monotonic()
    said = waited = False
    while True:
        slow.look(_optuna.all_trials(study))
        running = {n: trial for n, trial in _running(study).items() if n in numbers}
        if not running:
            return waited
        waited = True
        reap(study, monitor, running)
        if not said and time.monotonic() - started > _SAY_SECONDS:
            said = True
            count = "one trial" if len(running) == 1 else f"{len(running)} trials"
            _logger.warning(
                f"The search is over; waiting for {count} of other workers (Ctrl-C ends without "
                "them)."
            )
        backoff()


def _running(study: optuna.Study) -> dict[int, FrozenTrial]:
    return {
        trial.number: trial
        for trial in _optuna.all_trials(study)
        if trial.state == TrialState.RUNNING
        and (worker := StartedTrial(trial).worker) is not None
        and not is_this_process(worker)
    }
