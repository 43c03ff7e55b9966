"""Open a storage by its address, with suitable settings for each kind."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
import sqlite3
import time
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias
from urllib.parse import urlsplit
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.exceptions import StorageInternalError
from optuna.logging import get_logger
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage

from optuna_quant._optuna import RetryingGrpcStorage
from optuna_quant.storages.address import check_is_path
from optuna_quant.storages.address import shown_address
from optuna_quant.storages.address import without_secrets
from optuna_quant.storages.errors import NotOpenedError
from optuna_quant.storages.journal_file import check_directory
from optuna_quant.storages.journal_file import open_journal
from optuna_quant.storages.journal_redis import JournalRedis
from optuna_quant.storages.lost_connection import is_crowded
from optuna_quant.storages.rdb import CachingRDBStorage
from optuna_quant.storages.reconnection import first_line
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.workers.backoff import Backoff


if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.engine import Engine


Storage: TypeAlias = str | os.PathLike[str] | BaseStorage | None

_logger = get_logger(__name__)

_HEARTBEAT_SECONDS = 60
_SILENCE_SECONDS = 120
_SQLITE_WAIT_SECONDS = 60
_OPEN_ATTEMPTS = 12
_ROOM_SECONDS = 300.0
_UNIQUE_NAMES_SECONDS = 2.5
_GRPC_PORT = 13000
_GRPC_WAIT_SECONDS = 5.0

# For each kind of database: its drivers, by module, dialect and package, the usual one first.
_POSTGRESQL = (
    ("psycopg2", "psycopg2", "psycopg2-binary"),
    ("psycopg", "psycopg", '"psycopg[binary]"'),
)
_MYSQL = (("MySQLdb", "mysqldb", "mysqlclient"), ("pymysql", "pymysql", "pymysql"))
_KINDS = (
    "The kinds of storage are: a path, sqlite:///PATH, postgresql://, mysql://, mariadb://, "
    "redis://, rediss://, unix:// and grpc://HOST:PORT."
)
_DRIVERS = {
    "postgres": ("postgresql", _POSTGRESQL),
    "postgresql": ("postgresql", _POSTGRESQL),
    "mysql": ("mysql", _MYSQL),
    "mariadb": ("mariadb", _MYSQL),
}


def open_storage(storage: Storage, *, heartbeat: bool = True) -> BaseStorage:
    """Open a storage. Several processes may open the same new one at once.

    Args:
        storage:
            One of:

            - :obj:`None`: in memory.
            - A path, or ``journal:PATH``: a journal file, which several processes on one machine
              can share. It is guarded by :class:`JournalFileFlock`.
            - ``sqlite:///PATH``: an SQLite file, for processes on one machine. A new one gets a
              write-ahead log, which is several times quicker and does not work on a network file
              system; while it is in use, ``PATH-wal`` and ``PATH-shm`` belong to it.
            - ``postgresql://...``, ``mysql://...``, ``mariadb://...``: a database, for any number
              of machines. Where the URL names no driver, the one that is installed is used.
            - ``redis://...``, ``rediss://...``, ``unix://PATH?db=0``: a journal in Redis.
            - ``grpc://HOST:PORT``: whatever Optuna's ``run_grpc_proxy_server`` keeps there.
            - Another URL: whatever SQLAlchemy makes of it.
            - A storage object is given back as it is.

            Where a server is lost while a study runs, calls wait up to five minutes for it to
            come back: see :class:`~optuna_quant.storages.retrying.RetryingStorage`.
        heartbeat:
            Whether a database gets Optuna's heartbeat: each trial of ``study.optimize`` sends one
            every 60 s, and one that was silent for 120 s (its worker has died, on whatever
            machine) is marked as failed when another worker starts a trial. The samplers of this
            package do not need it: they write heartbeats of their own, on every storage.

    Raises:
        NotOpenedError:
            If it cannot be opened: a path that cannot be written, a damaged journal, a server
            that does not answer, a driver that is not installed.
    """
    if storage is None:
        return InMemoryStorage()
    if isinstance(storage, BaseStorage):
        return storage
    address = os.fspath(storage)
    try:
        if address.startswith(("redis://", "rediss://", "unix://")):
            return RetryingStorage(JournalStorage(JournalRedis(address)))
        if address.startswith("grpc://"):
            return RetryingStorage(_grpc(address))
        if "://" in address:
            return _database(address, heartbeat=heartbeat)
        if isinstance(storage, str):
            check_is_path(address)
        return open_journal(Path(address.removeprefix("journal:")).absolute())
    except ImportError as error:
        raise NotOpenedError(
            f"The storage {shown_address(address)!r} cannot be opened: its driver is not "
            f"installed. {_driver_hint(address)}"
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        message = f"The storage {shown_address(address)!r} cannot be opened: "
        if _is_of_no_kind(error):
            reason = [f"{reason[0].rstrip('.')}. {_KINDS}"]
        told = without_secrets(reason[0], address)
        # What is shown of an error has that which it came from, too.
        source = error if told == reason[0] else None
        raise NotOpenedError(message + told) from source


def _is_of_no_kind(error: Exception) -> bool:
    """Whether SQLAlchemy knows nothing for an address."""
    return type(error).__name__ == "NoSuchModuleError"


# Servers and SQLite.


def _grpc(address: str) -> BaseStorage:
    """A storage that another process keeps, see Optuna's ``run_grpc_proxy_server``."""
    importlib.import_module("grpc")
    parts = urlsplit(address)
    if parts.hostname is None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("write it as grpc://HOST:PORT.")
    # IPv6 addresses lose their brackets.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = RetryingGrpcStorage(host=host, port=parts.port or _GRPC_PORT)
    try:
        storage.wait_server_ready(timeout=_GRPC_WAIT_SECONDS)
    except ConnectionError:
        storage.close()
        raise ValueError(
            f"nothing answers on port {parts.port or _GRPC_PORT} of {parts.hostname}."
        ) from None
    return storage


def _database(address: str, *, heartbeat: bool) -> BaseStorage:
    """Open a database; again, if another process is making its tables at the same time."""
    from sqlalchemy import exc
    from sqlalchemy.engine import make_url

    scheme, rest = address.split("://", 1)
    if rest.partition("/")[0].count("@") > 1:
        raise ValueError("a '@' in the user name or the password must be written as %40.")
    base, drivers = _DRIVERS.get(scheme, (scheme, ()))
    url = make_url(f"{base}://{rest}")
    if drivers:
        url = url.set(drivername=f"{base}+{_installed(drivers)}")
    is_server = bool(drivers) or url.get_backend_name() != "sqlite"
    file = _sqlite_file(url)
    if file is not None:
        check_directory(file)
    # Optuna gives up where a table that it was about to make appears, or the row with the version.
    # Which of these errors that is differs between databases; others come again and are raised.
    collisions = (
        exc.IntegrityError,
        exc.OperationalError,
        exc.ProgrammingError,
        StorageInternalError,
        sqlite3.OperationalError,
    )
    backoff = _database_backoff()
    crowded_since: float | None = None
    futile = 0
    while True:
        try:
            storage = _database_once(url, file, heartbeat=heartbeat)
            if not is_server:
                return storage
            wait_for_unique_names(storage.engine)
            return RetryingStorage(storage)
        except collisions as error:
            failure = _failure(error, url)
            if failure is None:
                futile += 1
                if futile == _OPEN_ATTEMPTS:
                    raise
            elif not is_crowded(failure):
                raise
            else:
                crowded_since = _wait_for_room(failure, crowded_since)
        backoff()


def wait_for_unique_names(engine: Engine) -> None:
    """Wait until names of studies are unique in a database whose tables another process makes.

    The index that makes them so comes after the table: two processes that create a study of one
    name in between would both succeed. The wait is short, because a process that was killed at
    that moment leaves a database without the index.

    Args:
        engine:
            The engine of the database, which has all tables.
    """
    from sqlalchemy import inspect

    backoff = _database_backoff()
    deadline = time.monotonic() + _UNIQUE_NAMES_SECONDS
    while True:
        indexes = inspect(engine).get_indexes("studies")
        if any(each["unique"] and each["column_names"] == ["study_name"] for each in indexes):
            return
        if time.monotonic() >= deadline:
            return
        backoff()


def _database_backoff() -> Backoff:
    """Between two looks at what a process does that makes the tables of a database."""
    return Backoff(first=0.1, longest=1.0, factor=2.0, spread=(0.5, 1.0))


def _wait_for_room(error: Exception, since: float | None) -> float:
    """Since when there is no room on a server; raises if that has been for too long."""
    now = time.monotonic()
    if since is None:
        _logger.warning(
            "The storage's server accepts no more connections. Waiting for a free one, for up "
            f"to {_ROOM_SECONDS:g} s: {first_line(error)}"
        )
        return now
    if now - since >= _ROOM_SECONDS:
        raise ValueError(
            f"its server had no free connection for {_ROOM_SECONDS:g} s ({first_line(error)}). "
            "Start fewer workers, let it accept more connections (max_connections), or let one "
            "process hold them for all: optuna-quant serve."
        ) from error
    return since


def _database_once(url: URL, file: Path | None, *, heartbeat: bool) -> CachingRDBStorage:
    # No ping before each transaction: calls that wait for a server notice a lost connection.
    # One connection is kept for the next call; what threads need beyond it is made when needed.
    options: dict[str, Any] = {"pool_pre_ping": False, "pool_size": 1, "max_overflow": -1}
    in_memory = url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")
    if url.get_backend_name() == "sqlite":
        options = {}
        if url.drivername in ("sqlite", "sqlite+pysqlite"):
            # Optuna keeps these to open the storage again in another process.
            options["connect_args"] = {
                "timeout": _SQLITE_WAIT_SECONDS,
                "factory": SqliteConnection,
            }
    if file is not None and not (file.exists() and file.stat().st_size):
        with contextlib.closing(sqlite3.connect(file, timeout=_SQLITE_WAIT_SECONDS)) as new:
            new.execute("PRAGMA journal_mode=WAL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return CachingRDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=options,
            # The thread that sends it would see a database of its own where that is in memory.
            heartbeat_interval=_HEARTBEAT_SECONDS if heartbeat and not in_memory else None,
            grace_period=_SILENCE_SECONDS,
        )


def _failure(error: Exception, url: URL) -> Exception | None:
    """Why a database cannot be opened; :obj:`None` if another attempt may do, as it answers."""
    if is_crowded(error):
        return error
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(url)
    try:
        engine.connect().close()
    except SQLAlchemyError as failure:
        return failure
    finally:
        engine.dispose()
    return None


class SqliteConnection(sqlite3.Connection):
    """A connection that waits for the disk at checkpoints only, if there is a write-ahead log.

    There a loss of power can cost the last writes, but cannot damage the file (see "synchronous"
    in SQLite's documentation); the death of a process costs nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            self.execute("PRAGMA synchronous=NORMAL")


def _sqlite_file(url: URL) -> Path | None:
    name = url.database
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        return None
    if not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def _installed(drivers: tuple[tuple[str, str, str], ...]) -> str:
    """The dialect of the first driver that can be imported."""
    for module, dialect, _ in drivers:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
            return dialect
    raise ImportError


def _driver_hint(address: str) -> str:
    scheme = address.split("://", 1)[0]
    base, drivers = _DRIVERS.get(scheme.split("+")[0], (scheme, ()))
    if drivers:
        ways = " or: ".join(f"pip install {package}" for _, _, package in drivers)
        other = "" if base == scheme else f" ({base}://... uses whichever is installed)"
        return f"Run: {ways}{other}"
    if scheme.startswith("redis"):
        return "Run: pip install redis"
    if scheme == "grpc":
        return "Run: pip install grpcio protobuf"
    return "Install the driver that SQLAlchemy names for this kind of database."
