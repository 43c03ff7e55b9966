"""Journals in Redis, in few calls."""

from __future__ import annotations

from collections.abc import Generator
import json
from typing import Any
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalRedisBackend

from optuna_quant._optuna import append_logs
from optuna_quant._optuna import redis_client
from optuna_quant._optuna import set_redis_client


_ENTRIES_AT_ONCE = 1000


class JournalRedis(JournalRedisBackend):
    """A journal in Redis that reads and writes many entries in one call.

    The client's own repetitions are off: an entry that is sent twice is there twice.

    Args:
        url:
            The address of the server.
        prefix:
            What the names of the journal's keys begin with.
    """

    def __init__(self, url: str, *, prefix: str = "") -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(url, prefix=prefix)
        self._address = url
        self._keys = prefix  # As Optuna names them, so that either can read the other's.
        self._connect()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._connect()

    def _connect(self) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 60.0}
        if not self._address.startswith("unix://"):  # Sockets of one machine have no such options.
            options |= {"socket_connect_timeout": 10.0, "socket_keepalive": True}
        set_redis_client(self, redis.Redis.from_url(self._address, **options))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries: all or none of them."""
        append_logs(self, logs)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read the entries from a number on.

        Raises:
            StorageInternalError:
                If entries that were there are gone.
        """
        end = self._last() + 1
        if end < log_number_from:
            raise StorageInternalError(
                f"The journal in Redis had {log_number_from} entries and now has {end}: the "
                "server lost what it had not written to disk, or was emptied. Start the study "
                "again, on a server with 'appendonly yes' and 'appendfsync always'."
            )
        for start in range(log_number_from, end, _ENTRIES_AT_ONCE):
            numbers = range(start, min(start + _ENTRIES_AT_ONCE, end))
            keys = [f"{self._keys}:log:{number}" for number in numbers]
            for text in redis_client(self).mget(keys):
                if text is None:
                    raise StorageInternalError("Entries of the journal in Redis are missing.")
                yield json.loads(text)

    def _last(self) -> int:
        """The number of the last entry; -1 if there is none."""
        number = redis_client(self).get(f"{self._keys}:log_number")
        return -1 if number is None else int(number)
