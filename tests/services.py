"""Storages that the tests run on, real servers included.

To make Optuna's tables takes longer than most tests. So a database on a server is emptied and used
again by the next test of the same process, and a file of SQLite begins as a copy of an empty one.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from functools import cache
import os
from pathlib import Path
import tempfile
from typing import Any
import uuid

import optuna
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalRedisBackend
import pytest

from optuna_quant.storages import open as storages
from optuna_quant.storages.journal_redis import JournalRedis
from optuna_quant.storages.retrying import RetryingStorage


REQUIRED = os.environ.get("OPTUNA_QUANT_REQUIRE_SERVICES") == "1"

POSTGRESQL = os.environ.get(
    "OPTUNA_QUANT_TEST_POSTGRESQL", "postgresql+psycopg2://postgres@127.0.0.1:5432/"
)
MYSQL = os.environ.get("OPTUNA_QUANT_TEST_MYSQL", "mysql+pymysql://root@127.0.0.1:3306/")
REDIS = os.environ.get("OPTUNA_QUANT_TEST_REDIS", "redis://127.0.0.1:6379/9")

# What a test can ask for; a child process opens the same storage by its URL.
STORAGES = ["journal", "sqlite", "postgresql", "mysql", "redis"]


def _missing(service: str, error: Exception) -> None:
    message = f"{service} is not reachable: {error}"
    if REQUIRED:
        pytest.fail(message)
    pytest.skip(message)


# With Optuna's tables, in which nothing is: those of each server that no test uses now.
_databases: dict[str, list[str]] = {}


def _execute(url: str, *statements: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3}
    )
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement))
    finally:
        engine.dispose()


def _is_postgresql(url: str) -> bool:
    return url.startswith("postgresql")


def _maintenance(server: str) -> str:
    return server + ("postgres" if _is_postgresql(server) else "")


def _create(server: str) -> str:
    import sqlalchemy

    name = f"optuna_quant_test_{uuid.uuid4().hex[:12]}"
    try:
        _execute(_maintenance(server), f"CREATE DATABASE {name}")
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        _missing("PostgreSQL" if _is_postgresql(server) else "MariaDB or MySQL", error)
    return server + name


def _drop(server: str, url: str) -> None:
    force = " WITH (FORCE)" if _is_postgresql(url) else ""
    _execute(_maintenance(server), f"DROP DATABASE {url.removeprefix(server)}{force}")


def _empty(url: str) -> None:
    """Delete all that is in Optuna's tables, and end all other connections."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    found = sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()
    tables = [name for name in found if name not in ("alembic_version", "version_info")]
    if _is_postgresql(url):
        _execute(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid != pg_backend_pid()",
            f"TRUNCATE {', '.join(tables)} RESTART IDENTITY",
        )
    else:
        truncate = [f"TRUNCATE {name}" for name in tables]
        _execute(url, "SET FOREIGN_KEY_CHECKS = 0", *truncate)


@contextlib.contextmanager
def _without_tables(server: str) -> Iterator[str]:
    url = _create(server)
    try:
        yield url
    finally:
        _drop(server, url)


@contextlib.contextmanager
def _with_tables(server: str) -> Iterator[str]:
    unused = _databases.setdefault(server, [])
    if unused:
        url = unused.pop()
    else:
        url = _create(server)
        _dispose(RDBStorage(url))
    try:
        yield url
    except BaseException:
        _drop(server, url)
        raise
    _empty(url)
    unused.append(url)


def drop_databases() -> None:
    """Drop those that were kept for further tests."""
    for server, urls in _databases.items():
        while urls:
            _drop(server, urls.pop())


def _dispose(storage: Any) -> None:
    storage.remove_session()
    storage.engine.dispose()


@cache
def _new_sqlite(as_users_do: bool) -> bytes:
    """A file of SQLite with Optuna's tables, in which nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.db"
        url = f"sqlite:///{file}"
        _dispose(storages.open_storage(url) if as_users_do else RDBStorage(url))
        assert list(Path(folder).iterdir()) == [file]
        return file.read_bytes()


def _begin_sqlite(url: str, *, as_users_do: bool) -> None:
    """Lay a file with tables where there is none."""
    file = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or file.exists():
        return
    new = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    new.write_bytes(_new_sqlite(as_users_do))
    with contextlib.suppress(FileExistsError):  # Another process was quicker.
        os.link(new, file)
    new.unlink()


@contextlib.contextmanager
def storage_url(kind: str, directory: Path, *, tables: bool = True) -> Iterator[str]:
    """The URL of a new storage of a kind; skips (or fails, if required) without its server.

    Args:
        kind:
            One of :data:`STORAGES`.
        directory:
            Where files are.
        tables:
            Whether a database on a server has Optuna's tables already.
    """
    if kind == "journal":
        yield f"journal:{directory / 'study.journal'}"
    elif kind == "sqlite":
        yield f"sqlite:///{directory / 'study.db'}"
    elif kind == "postgresql":
        with (_with_tables if tables else _without_tables)(POSTGRESQL) as url:
            yield url
    elif kind == "mysql":
        with (_with_tables if tables else _without_tables)(MYSQL) as url:
            yield url
    elif kind == "redis":
        import redis

        client = redis.Redis.from_url(REDIS)
        try:
            client.ping()
        except redis.exceptions.RedisError as error:
            _missing("Redis", error)
        prefix = uuid.uuid4().hex
        yield f"{REDIS}#{prefix}"
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)
    else:
        raise ValueError(kind)


def open_storage(url: str) -> BaseStorage:
    """Open what :func:`storage_url` gave."""
    if url.startswith("journal:"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    if url.startswith("redis:"):
        server, _, prefix = url.partition("#")
        return JournalStorage(JournalRedisBackend(server, prefix=prefix))
    _begin_sqlite(url, as_users_do=False)
    return RDBStorage(url)


def open_as_users_do(url: str) -> BaseStorage:
    """Open what :func:`storage_url` gave with the library's own settings."""
    if url.startswith("redis:"):
        # A user's address has no prefix; the tests share one server.
        server, _, prefix = url.partition("#")
        return RetryingStorage(JournalStorage(JournalRedis(server, prefix=prefix)))
    _begin_sqlite(url, as_users_do=True)
    return storages.open_storage(url)


def create(url: str, name: str = "study") -> optuna.Study:
    return optuna.create_study(
        storage=open_storage(url), study_name=name, direction="maximize", load_if_exists=True
    )


Opener = Callable[[str], BaseStorage]
