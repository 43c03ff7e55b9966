"""The command in processes of its own that need not import anything: they are forked.

Everything else is that of a process: signals, exit codes, how the interpreter comes to its end.
What depends on how the interpreter begins (closed streams, encodings) needs a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from zygote import Zygote


class ForkedCommand:
    """A command that runs here, with the environment that this process has now.

    Args:
        zygote:
            The process that forks it.
        args:
            The arguments of the command.
    """

    def __init__(self, zygote: Zygote, args: Sequence[str]) -> None:
        self._zygote = zygote
        self._args = list(args)
        self._folder = tempfile.TemporaryDirectory()
        self.pid = zygote.start(
            "cli.forked_commands:run",
            args=self._args,
            folder=os.getcwd(),
            environment=dict(os.environ),
            streams=self._folder.name,
        )

    def end(self, *, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Wait for it; gives its exit status and what it has written."""
        status, _ = self._zygote.wait(self.pid, timeout=timeout)
        texts = [(Path(self._folder.name) / name).read_text() for name in ("out", "err")]
        self._folder.cleanup()
        return subprocess.CompletedProcess(self._args, status, *texts)


def run(args: list[str], folder: str, environment: dict[str, str], streams: str) -> None:
    """Do what ``optuna-quant`` does, in a process that was forked."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(streams) / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv[1:] = args
    from optuna_quant.cli import main

    sys.exit(main())
