"""Storages that the tests run on, real servers included."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
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


@contextlib.contextmanager
def database(server: str, service: str) -> Iterator[str]:
    """A new, empty database on a server."""
    import sqlalchemy

    name = f"optuna_quant_test_{uuid.uuid4().hex[:12]}"
    maintenance = server + ("postgres" if service == "PostgreSQL" else "")
    engine = sqlalchemy.create_engine(
        maintenance, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3}
    )
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        _missing(service, error)
    try:
        yield server + name
    finally:
        force = " WITH (FORCE)" if service == "PostgreSQL" else ""
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name}{force}"))
        engine.dispose()


@contextlib.contextmanager
def storage_url(kind: str, directory: Path) -> Iterator[str]:
    """The URL of a new storage of a kind; skips (or fails, if required) without its server."""
    if kind == "journal":
        yield f"journal:{directory / 'study.journal'}"
    elif kind == "sqlite":
        yield f"sqlite:///{directory / 'study.db'}"
    elif kind == "postgresql":
        with database(POSTGRESQL, "PostgreSQL") as url:
            yield url
    elif kind == "mysql":
        with database(MYSQL, "MariaDB or MySQL") as url:
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
    return RDBStorage(url)


def open_as_users_do(url: str) -> BaseStorage:
    """Open what :func:`storage_url` gave with the library's own settings."""
    if url.startswith("redis:"):
        # A user's address has no prefix; the tests share one server.
        server, _, prefix = url.partition("#")
        return RetryingStorage(JournalStorage(JournalRedis(server, prefix=prefix)))
    return storages.open_storage(url)


def create(url: str, name: str = "study") -> optuna.Study:
    return optuna.create_study(
        storage=open_storage(url), study_name=name, direction="maximize", load_if_exists=True
    )


Opener = Callable[[str], BaseStorage]
