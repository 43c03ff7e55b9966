"""The storages that benchmarks run on; servers that do not answer are left out."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import uuid


KINDS = ("journal", "sqlite", "postgresql", "mysql", "redis")

_SERVERS = {
    "postgresql": ("BENCH_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/", "postgres"),
    "mysql": ("BENCH_MYSQL", "mysql://root@127.0.0.1:3306/", ""),
}


def wanted_kinds() -> tuple[str, ...]:
    """Those that the environment variable ``STORAGES`` names, or all."""
    given = os.environ.get("STORAGES")
    return tuple(given.split(",")) if given else KINDS


@contextlib.contextmanager
def new_storage(kind: str, directory: Path) -> Iterator[str | None]:
    """The address of a new, empty storage; :obj:`None` if its server does not answer."""
    if kind == "journal":
        yield str(directory / "study.journal")
    elif kind == "sqlite":
        yield f"sqlite:///{directory / 'study.db'}"
    elif kind == "redis":
        yield _empty_redis(os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/15"))
    else:
        variable, default, maintenance = _SERVERS[kind]
        yield from _database(os.environ.get(variable, default), maintenance)


def _empty_redis(address: str) -> str | None:
    try:
        import redis

        redis.Redis.from_url(address).flushdb()
    except Exception:
        return None
    return address


def _database(server: str, maintenance: str) -> Iterator[str | None]:
    import sqlalchemy

    name = f"optuna_quant_bench_{uuid.uuid4().hex[:8]}"
    scheme, rest = server.split("://", 1)
    driver = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql"}[scheme]
    try:
        engine = sqlalchemy.create_engine(
            f"{driver}://{rest}{maintenance}", isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    except Exception:
        yield None
        return
    try:
        yield f"{server}{name}"
    finally:
        force = " WITH (FORCE)" if scheme == "postgresql" else ""
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name}{force}"))
        engine.dispose()
