"""Create a study without a line in the log."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
import threading

from optuna_quant._common.loggers import loggers_below


class _OfAThread(logging.Filter):
    """Drops the line with which Optuna says, in one thread, that it has created a study."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, entry: logging.LogRecord) -> bool:
        is_ours = entry.thread == self._thread
        return not (is_ours and str(entry.msg).startswith("A new study created"))


@contextlib.contextmanager
def without_creation_line() -> Iterator[None]:
    """Hold back, in this thread, what Optuna logs of a study that it creates.

    The name is that of ``result.study``, or the one that the user has given. What other threads
    log passes.
    """
    dropped = _OfAThread(threading.get_ident())
    loggers = loggers_below("optuna.storages")
    for logger in loggers:
        logger.addFilter(dropped)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(dropped)
