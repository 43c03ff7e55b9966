"""Servers of a test's own, which it may kill and start again."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from child_paths import python_path
from free_ports import free_port
import pytest
import services


def _missing(what: str) -> None:
    if services.REQUIRED:
        pytest.fail(what)
    pytest.skip(what)


class OwnServer:
    """A server in a directory of its own; subclasses say how it is started and reached."""

    address: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    def prepare(self) -> None:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        """Start it and wait until it answers; it may need its time after a violent death."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                with (self.directory / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        self.command(), stdout=log, stderr=log, **self._options()
                    )
            if self.is_ready():
                return
            time.sleep(0.1)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)

    def restart(self, pause: float = 0.5) -> None:
        self.kill()
        time.sleep(pause)
        self.start()


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
        self._data = self.directory / "data"
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:  # It does not run as root.
            try:
                shutil.chown(self._data, "postgres", "postgres")
            except LookupError:
                _missing("PostgreSQL cannot be run as root, and there is no user postgres")
            self.directory.chmod(0o755)
        initdb = [found, "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync"]
        done = subprocess.run(initdb, capture_output=True, text=True, **self._options())
        assert done.returncode == 0, done.stderr
        self.address = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _options(self) -> dict[str, Any]:
        if os.geteuid() == 0:
            return {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
        return {"cwd": "/"}

    def command(self) -> list[str]:
        settings = ["shared_buffers=16MB", f"max_connections={self.connections}"]
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

    connections = 5


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
    def prepare(self) -> None:
        pytest.importorskip("grpc")
        self.address = f"grpc://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        script = (
            "import optuna, sys; from optuna_quant.storages.open import open_storage; "
            "storage = optuna.storages.get_storage(open_storage(sys.argv[1])); "
            "optuna.storages.run_grpc_proxy_server("
            "storage, host='127.0.0.1', port=int(sys.argv[2]))"
        )
        file = f"sqlite:///{self.directory / 'study.db'}"
        return [sys.executable, "-W", "ignore", "-c", script, file, str(self.port)]

    def _options(self) -> dict[str, Any]:
        return {"env": {**os.environ, "PYTHONPATH": python_path(Path(__file__).parents[1])}}

    def is_ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


KINDS: dict[str, type[OwnServer]] = {
    "postgresql": OwnPostgresql,
    "redis": OwnRedis,
    "grpc": OwnGrpc,
}


@contextlib.contextmanager
def own_server(kind: str | type[OwnServer]) -> Iterator[OwnServer]:
    # Not below pytest's own directory, into which no other user may look.
    with tempfile.TemporaryDirectory(prefix="optuna_quant_", ignore_cleanup_errors=True) as path:
        server = (KINDS[kind] if isinstance(kind, str) else kind)(Path(path))
        try:
            server.start()
            yield server
        finally:
            server.kill()
