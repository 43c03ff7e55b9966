"""Hide log lines of Optuna that only repeat ours."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
import threading

from optuna_quant._optuna import TRIAL_LOGGERS
from optuna_quant.study.errors import BaselineError


class _Repeated(logging.Filter):
    """Drops lines that the caller is told anyway, of this thread only."""

    def __init__(self, *, progress: bool) -> None:
        super().__init__()
        self._progress = progress
        self._thread = threading.get_ident()

    def filter(self, entry: logging.LogRecord) -> bool:
        if entry.thread != self._thread:
            return True
        if entry.exc_info and isinstance(entry.exc_info[1], BaselineError):
            return False  # It is raised to the caller, traceback and all.
        return not (self._progress and entry.levelno == logging.INFO)


@contextlib.contextmanager
def without_repeated_lines(*, progress: bool) -> Iterator[None]:
    """Hold back, for this thread and while it lasts, what Optuna logs a second time.

    That is the traceback of a :class:`~optuna_quant.study.errors.BaselineError`, which is
    raised.

    Args:
        progress:
            Whether a line per trial is shown, so that Optuna's is one too many.
    """
    repeated = _Repeated(progress=progress)
    for name in TRIAL_LOGGERS:
        logging.getLogger(name).addFilter(repeated)
    try:
        yield
    finally:
        for name in TRIAL_LOGGERS:
            logging.getLogger(name).removeFilter(repeated)
