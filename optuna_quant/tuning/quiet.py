"""Hide log lines of Optuna that only repeat ours."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from optuna_quant._common.loggers import loggers_below


if TYPE_CHECKING:
    import optuna


_Function = Callable[["optuna.Trial"], float]


class _OneLineOfATrial(logging.Filter):
    """Drops the lines with which Optuna says how a trial of this search has ended.

    It has all parameters of the trial: 1,600 characters with 16 ops. Optuna writes it in the
    thread of the trial as soon as the objective has returned, and nothing else before it; so what
    other studies log, in this thread or another one, passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ended = threading.local()

    def filter(self, entry: logging.LogRecord) -> bool:
        number = getattr(self._ended, "number", None)
        if number is None or not str(entry.msg).startswith(f"Trial {number} "):
            return True
        # Of one that has failed there are two lines: its parameters first.
        if not str(entry.msg).startswith(f"Trial {number} failed with parameters"):
            self._ended.number = None
        return False

    def noting(self, function: _Function) -> _Function:
        """The same objective, which notes the end of each of its trials."""

        def run(trial: optuna.Trial) -> float:
            self._ended.number = None
            try:
                return function(trial)
            finally:
                self._ended.number = trial.number

        return run


@contextlib.contextmanager
def without_info() -> Iterator[None]:
    """Hold back, while it lasts, what our loggers say below a warning: the progress shows it.

    A level that was set for ``optuna_quant``, or a higher verbosity of Optuna's, stays.
    """
    logger = logging.getLogger("optuna_quant")
    is_given = logger.level != logging.NOTSET
    if not is_given:
        logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        if not is_given:
            logger.setLevel(logging.NOTSET)


@contextlib.contextmanager
def without_trial_lines() -> Iterator[Callable[[_Function], _Function]]:
    """Hold back, while it lasts, what Optuna logs about the end of some trials.

    What is to be known of a trial is in our own lines. An exception that ends the search is
    raised, traceback and all.

    Yields:
        A function that takes an objective, and gives the one whose trials are not logged.
    """
    dropped = _OneLineOfATrial()
    loggers = loggers_below("optuna.study")
    for logger in loggers:
        logger.addFilter(dropped)
    try:
        yield dropped.noting
    finally:
        for logger in loggers:
            logger.removeFilter(dropped)
