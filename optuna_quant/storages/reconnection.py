"""Repeat calls that failed because a storage's server could not be reached, once it is back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import threading
import time
from typing import TYPE_CHECKING
from typing import TypeVar

from optuna.logging import get_logger

from optuna_quant._optuna import ping
from optuna_quant.storages.database import close_connections
from optuna_quant.storages.database import is_database
from optuna_quant.storages.database import release_connection
from optuna_quant.storages.idle_connections import IdleConnections
from optuna_quant.storages.lost_connection import is_crowded
from optuna_quant.storages.lost_connection import is_lost_connection
from optuna_quant.workers.backoff import Backoff


if TYPE_CHECKING:
    from optuna.storages import BaseStorage


T = TypeVar("T")

_logger = get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_FUTILE_ATTEMPTS = 5
_IDLE_SECONDS = 1.0


class StorageLostError(ConnectionError):
    """The server of a storage could not be reached within the timeout."""


class Reconnection:
    """Repeats calls of a storage once its server is back, and logs an outage and its end.

    Args:
        storage:
            The storage. Where it is a database, connections that were not used for a while are
            closed.
        timeout:
            For how many seconds an outage may last.
    """

    def __init__(self, storage: BaseStorage, timeout: float) -> None:
        self._storage = storage
        self._timeout = timeout
        self._lock = threading.Lock()
        self._lost_since: float | None = None
        self._back_since: float | None = None
        self._idle: IdleConnections | None = None
        if is_database(storage):
            self._idle = IdleConnections(partial(close_connections, storage), _IDLE_SECONDS)

    def repeat(self, action: Callable[[], T], done: Callable[[], T | None] | None = None) -> T:
        """Do something with the storage, again if the connection is lost meanwhile.

        For the arguments and errors see
        :meth:`RetryingStorage.repeat <optuna_quant.storages.retrying.RetryingStorage.repeat>`.
        """
        futile = 0
        attempt = action
        while True:
            try:
                result = attempt()
            except Exception as error:
                if not is_lost_connection(error):
                    raise
                release_connection(self._storage)
                if not self._wait(_FIRST_PAUSE_SECONDS * 2**futile):
                    futile += 1
                if futile == _FUTILE_ATTEMPTS:
                    raise
            else:
                self._is_back()
                if self._idle is not None:
                    self._idle.used()
                return result
            if done is not None:
                attempt = _first(done, action)

    def _wait(self, first: float) -> bool:
        """Wait until the server answers; :obj:`False` if it did after the first pause."""
        waited = False
        backoff = Backoff(
            first=first, longest=_LONGEST_PAUSE_SECONDS, factor=2.0, spread=(0.5, 1.0)
        )
        while True:
            backoff()
            try:
                ping(self._storage)
            except Exception as again:
                release_connection(self._storage)
                if not _is_silence(again):
                    raise
                waited = True
                self._is_lost(again)
            else:
                return waited

    def _is_lost(self, error: Exception) -> None:
        """Note an outage, and say so once; raise if it lasts too long."""
        now = time.monotonic()
        with self._lock:
            is_new = self._lost_since is None
            since = self._lost_since = now if self._lost_since is None else self._lost_since
        if is_new:
            what = (
                "The storage's server accepts no more connections. Waiting for a free one"
                if is_crowded(error)
                else "The connection to the storage is lost. Waiting for it"
            )
            _logger.warning(f"{what}, for up to {self._timeout:g} s: {first_line(error)}")
        if now - since >= self._timeout:
            message = (
                f"The storage could not be reached for {self._timeout:g} s. What was recorded "
                "before is not lost: start again when the storage can be reached. "
                f"({first_line(error)})"
            )
            # Optuna hides the error of a call that ends a trial behind an assertion.
            _logger.error(message)
            raise StorageLostError(message) from error

    def _is_back(self) -> None:
        if self._lost_since is None:
            return
        with self._lock:
            since, self._lost_since = self._lost_since, None
            self._back_since = time.monotonic()
        if since is not None:
            _logger.info(
                f"The storage is back after {time.monotonic() - since:.1f} s. Continuing."
            )

    def ended_within(self, seconds: float) -> bool:
        """Whether others may not have noticed yet that an outage is over.

        Args:
            seconds:
                How long they have after the longest pauses of their own.
        """
        if self._back_since is None:
            return False
        silence = seconds + 2 * _LONGEST_PAUSE_SECONDS
        return time.monotonic() - self._back_since <= silence


def _first(done: Callable[[], T | None], action: Callable[[], T]) -> Callable[[], T]:
    def attempt() -> T:
        found = done()
        return action() if found is None else found

    return attempt


def _is_silence(error: Exception) -> bool:
    return is_lost_connection(error) or isinstance(error, ConnectionError)


def first_line(error: BaseException) -> str:
    """What an error says in the end, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
