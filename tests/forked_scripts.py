"""Python code in a process that was forked, see :mod:`zygote`, with which a test can talk."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import sys
import tempfile

from zygote import Zygote


class ForkedScript:
    """A process that runs a script.

    Args:
        zygote:
            The process that forks it.
        script:
            The code.
        arguments:
            What it finds in ``sys.argv[1:]``.
        cwd:
            Its working directory; by default that of this process.

    Attributes:
        stdin:
            What it reads, to be written.
        stdout:
            What it writes, to be read.
    """

    def __init__(
        self, zygote: Zygote, script: str, *arguments: object, cwd: Path | None = None
    ) -> None:
        self._zygote = zygote
        with tempfile.TemporaryDirectory() as folder:
            pipes = [f"{folder}/{name}" for name in ("in", "out")]
            for pipe in pipes:
                os.mkfifo(pipe)
            self._pid = zygote.start(
                "forked_scripts:run",
                script=script,
                arguments=list(map(str, arguments)),
                cwd=str(cwd or Path.cwd()),
                pipes=pipes,
            )
            # Each waits for the other side.
            self.stdin = Path(pipes[0]).open("w")  # noqa: SIM115
            self.stdout = Path(pipes[1]).open()  # noqa: SIM115

    def kill(self) -> None:
        """Kill it."""
        os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        """Wait for its end; gives the exit status, negative for a signal, and its errors."""
        found = self._zygote.wait(self._pid)
        self.stdin.close()
        self.stdout.close()
        return found


def written_by(zygote: Zygote, script: str, *arguments: object) -> str:
    """What a script writes, in a new process, until it ends without an error."""
    given = list(map(str, arguments))
    status, written = zygote.wait(
        zygote.start("forked_scripts:execute", script=script, arguments=given)
    )
    assert status == 0, written
    return written


def run(script: str, arguments: list[str], cwd: str, pipes: list[str]) -> None:
    """What the process does."""
    os.chdir(cwd)
    os.dup2(os.open(pipes[0], os.O_RDONLY), 0)
    os.dup2(os.open(pipes[1], os.O_WRONLY), 1)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    execute(script, arguments)


def execute(script: str, arguments: list[str]) -> None:
    """Run a script that reads nothing; what it writes is told when it has ended."""
    sys.argv = ["", *arguments]
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})
