"""Servers of a test's own, which it may kill and start again."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from functools import cache
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any
from typing import Protocol
import warnings

from free_ports import free_port
import optuna
import pytest
import services
from zygote import Zygote

from optuna_quant.storages.open import open_storage


def _missing(what: str) -> None:
    if services.REQUIRED:
        pytest.fail(what)
    pytest.skip(what)


class _Process(Protocol):
    """What is asked of a server's process."""

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int, /) -> None: ...

    def wait(self, timeout: float) -> int: ...


class OwnServer:
    """A server in a directory of its own; subclasses say how it is started and reached."""

    address: str

    def __init__(self, directory: Path, zygote: Zygote | None) -> None:
        self.directory = directory
        self.port = free_port()
        self._zygote = zygote
        self._process: _Process | None = None
        self.prepare()

    def prepare(self) -> None:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        return {}

    def _launch(self) -> _Process:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(self.command(), stdout=log, stderr=log, **self._options())

    def start(self) -> None:
        """Start it and wait until it answers; it may need its time after a violent death."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = self._launch()
            if self.is_ready():
                return
            time.sleep(0.02)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)

    def restart(self, pause: float = 0.5) -> None:
        self.kill()
        time.sleep(pause)
        self.start()


def _as_postgres() -> dict[str, Any]:
    """PostgreSQL does not run as root."""
    if os.geteuid() == 0:
        return {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
    return {"cwd": "/"}


def _folder_of_postgres(path: Path) -> Path:
    """A new folder there, which is PostgreSQL's own."""
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        try:
            shutil.chown(path, "postgres", "postgres")
        except LookupError:
            _missing("PostgreSQL cannot be run as root, and there is no user postgres")
        path.parent.chmod(0o755)
    return path


@cache
def _new_cluster(initdb: str) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """The data of a server that was never started; to copy them is quicker than to make them."""
    folder = tempfile.TemporaryDirectory(prefix="optuna_quant_", ignore_cleanup_errors=True)
    data = _folder_of_postgres(Path(folder.name) / "data")
    command = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
    done = subprocess.run(command, capture_output=True, text=True, **_as_postgres())
    assert done.returncode == 0, done.stderr
    return folder, data


class OwnPostgresql(OwnServer):
    connections = 30

    def prepare(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        found = str(binaries[-1]) if binaries else shutil.which("initdb")
        if found is None:
            _missing("PostgreSQL is not installed: there is no initdb")
        pytest.importorskip("psycopg2")
        assert found is not None
        self._binaries = Path(found).resolve().parent
        self._data = _folder_of_postgres(self.directory / "data")
        _, new = _new_cluster(found)
        subprocess.run(["cp", "-R", f"{new}/.", str(self._data)], check=True, **_as_postgres())
        self.address = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _options(self) -> dict[str, Any]:
        return _as_postgres()

    def command(self) -> list[str]:
        # What the death of a process costs does not depend on whether the disk has it.
        settings = ["fsync=off", "shared_buffers=16MB", f"max_connections={self.connections}"]
        settings += ["superuser_reserved_connections=0"]
        settings += [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        options = [word for setting in settings for word in ("-c", setting)]
        return [str(self._binaries / "postgres"), "-D", str(self._data), *options]

    def is_ready(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(self.address, connect_timeout=3).close()
        except psycopg2.OperationalError:
            return False
        return True


class SmallPostgresql(OwnPostgresql):
    """For a few connections at a time."""

    connections = 3


class OwnRedis(OwnServer):
    def prepare(self) -> None:
        if shutil.which("redis-server") is None:
            _missing("redis-server is not installed")
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self.socket = self.directory / "redis.sock"

    def command(self) -> list[str]:
        return [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--unixsocket", str(self.socket)),
            # Otherwise an answer may be given up to two seconds before it is written.
            *("--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.directory)),
        ]

    def is_ready(self) -> bool:
        import redis

        try:
            redis.Redis.from_url(self.address, socket_timeout=3).ping()
        except redis.exceptions.RedisError:
            return False
        return True


class OwnGrpc(OwnServer):
    """In a process that is forked: all the others are servers of their own kind."""

    def prepare(self) -> None:
        pytest.importorskip("grpc")
        self.address = f"grpc://127.0.0.1:{self.port}"

    def _launch(self) -> _Process:
        assert self._zygote is not None
        file = f"sqlite:///{self.directory / 'study.db'}"
        return _Forked(self._zygote, "own_servers:serve_grpc", address=file, port=self.port)

    def is_ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class _Forked:
    """A process that was forked, as one that was started."""

    def __init__(self, zygote: Zygote, function: str, **kwargs: Any) -> None:
        self._zygote = zygote
        self._pid = zygote.start(function, **kwargs)
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self._zygote.has_ended(self._pid):
            self.wait(30)
        return self._status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, sig)

    def wait(self, timeout: float) -> int:
        if self._status is None:
            self._status, _ = self._zygote.wait(self._pid, timeout=timeout)
        return self._status


def serve_grpc(address: str, port: int) -> None:
    """Serve a storage, until this process is killed."""
    warnings.simplefilter("ignore")
    storage = optuna.storages.get_storage(open_storage(address))
    optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=port)


KINDS: dict[str, type[OwnServer]] = {
    "postgresql": OwnPostgresql,
    "redis": OwnRedis,
    "grpc": OwnGrpc,
}


@contextlib.contextmanager
def own_server(kind: str | type[OwnServer], zygote: Zygote | None = None) -> Iterator[OwnServer]:
    """A server that has started; the one of gRPC needs what forks its process."""
    # Not below pytest's own directory, into which no other user may look.
    with tempfile.TemporaryDirectory(prefix="optuna_quant_", ignore_cleanup_errors=True) as path:
        server = (KINDS[kind] if isinstance(kind, str) else kind)(Path(path), zygote)
        try:
            server.start()
            yield server
        finally:
            server.kill()
