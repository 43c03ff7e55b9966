"""Waiting for what other workers are still at, so that all conclude from the same record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant import record
from optuna_quant._pause import Pause
from optuna_quant._worker import is_this_process
from optuna_quant.samplers._liveness import Watch
from optuna_quant.samplers._liveness import bury


if TYPE_CHECKING:
    import optuna


_logger = get_logger(__name__)

_PATIENCE_SECONDS = 180.0
_SAY_SECONDS = 5.0


def await_last_trials(study: optuna.Study, *, patience: float = _PATIENCE_SECONDS) -> bool:
    """Wait until no other worker runs a trial of the study.

    To be called when the study is to stop: the others stop, too, after the trial that they are
    at. Those trials may hold the best result, and without them each worker would give another
    answer.

    Args:
        study:
            The study.
        patience:
            After how many seconds without a sign of life a worker on another machine is taken for
            dead. One on this machine that has died is noticed at once.

    Returns:
        Whether there was any trial to wait for.
    """
    watch, pause = Watch(patience), Pause()
    begun = time.monotonic()
    said = waited = False
    while True:
        running = {
            trial.number: trial
            for trial in _optuna.all_trials(study)
            if trial.state == TrialState.RUNNING
            and (worker := record.worker_of(trial)) is not None
            and not is_this_process(worker)
        }
        if not running:
            return waited
        waited = True
        bury(study, watch, running)
        if not said and time.monotonic() - begun > _SAY_SECONDS:
            said = True
            count = "one trial" if len(running) == 1 else f"{len(running)} trials"
            _logger.warning(
                f"The search is over; waiting for {count} that other workers are still at "
                "(Ctrl-C ends without)."
            )
        pause()
