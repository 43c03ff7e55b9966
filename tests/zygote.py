"""Worker processes that start in milliseconds, forked by a process that has imported everything.

The process reads one request a line and answers each with a line; both are JSON. It has no
threads and no connections, so that its children begin with nothing of anybody else's. (So it does
not import onnxruntime, which starts a thread for itself.)
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
import contextlib
import gc
import importlib
import json
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any


_LONGEST_SECONDS = 150
_IMPORTS = [
    "alembic.command",
    "cli.forked_commands",
    "faults.fault_worker",
    "samplers.parallel_worker",
    "onnx",
    "optuna_quant.cli.tune",
    "optuna_quant.samplers._models.bayesian_policy",
    "optuna_quant.tuning.api",
    "pandas",
    "psycopg2",
    "pymysql",
    "redis",
    "scipy.linalg",
    "sqlalchemy.dialects.mysql",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
]


class Zygote:
    """The process that forks, seen from the tests; several threads may ask it."""

    def __init__(self) -> None:
        tests = str(Path(__file__).parent)
        code = f"import sys; sys.path.insert(0, {tests!r}); from zygote import serve; serve()"
        # Fewer threads: they would be lost by forking, and the tests have two cores.
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | alone,
        )
        self._ended: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the process that forks has died"
        return json.loads(answer)

    def start(self, function: str, **kwargs: Any) -> int:
        """Start a worker that calls ``module:function`` with these arguments; gives its number."""
        found: int = self._ask({"start": function, "kwargs": kwargs})
        return found

    def has_ended(self, pid: int) -> bool:
        """Whether a worker has ended."""
        for number, status, errors in self._ask({"ended": True}):
            self._ended[number] = status, errors
        return pid in self._ended

    def wait(self, pid: int, *, timeout: float = 120.0) -> tuple[int, str]:
        """Wait for a worker; gives its exit status, negative for a signal, and what it wrote."""
        deadline = time.monotonic() + timeout
        while not self.has_ended(pid):
            assert time.monotonic() < deadline, "a worker does not come to its end"
            time.sleep(0.02)
        return self._ended.pop(pid)

    def join(self, *pids: int, timeout: float = 120.0) -> list[int]:
        """Wait for workers; gives their exit statuses, negative for a signal.

        Raises:
            AssertionError:
                If one of them ended with an error.
        """
        deadline = time.monotonic() + timeout
        while not all([self.has_ended(pid) for pid in pids]):
            assert time.monotonic() < deadline, "a worker does not come to its end"
            time.sleep(0.02)
        found = [self._ended.pop(pid) for pid in pids]
        for status, errors in found:
            assert status <= 0, errors
        return [status for status, _ in found]

    def close(self) -> None:
        """End it, and all workers that are left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@contextlib.contextmanager
def zygote() -> Iterator[Zygote]:
    """A process that forks, for as long as the block lasts."""
    process = Zygote()
    try:
        yield process
    finally:
        process.close()


# The other side.


def serve() -> None:
    """Fork a worker for each request, until there are no more."""
    for name in _IMPORTS:
        with contextlib.suppress(ImportError):  # Drivers of servers that are not tested here.
            importlib.import_module(name)
    kept = importlib.import_module("kept")
    kept.keep_what_stays_the_same()
    kept.read_ahead()
    importlib.import_module("no_spinning").sessions_do_not_spin()
    # The garbage collector of a child does not touch, and so not copy, what all share.
    gc.collect()
    gc.freeze()
    alive: dict[int, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
            pid = os.fork()
            if pid == 0:
                _work(request["start"], request["kwargs"], errors)
            alive[pid] = errors
            answer: Any = pid
        else:
            answer = [_result(pid, alive) for pid in list(alive) if _is_over(pid)]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _is_over(pid: int) -> bool:
    # Without taking it off the table, so that its number is not used again.
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def _result(pid: int, alive: dict[int, Any]) -> tuple[int, int, str]:
    _, status = os.waitpid(pid, 0)
    errors = alive.pop(pid)
    errors.seek(0)
    return pid, os.waitstatus_to_exitcode(status), errors.read()


def _work(function: str, kwargs: dict[str, Any], errors: Any) -> None:
    signal.alarm(_LONGEST_SECONDS)  # It does not outlive the tests by much, whatever happens.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    status = 0
    try:
        random.seed(os.getpid())
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(**kwargs)
    except SystemExit as ended:  # As a program ends, but memory is not freed: it is shared.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
