"""The command in processes of its own that need not import anything: they are forked.

Everything else is that of a process: signals, exit codes, how the interpreter comes to its end.
What depends on how the interpreter begins (closed streams, encodings) needs a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile

from zygote import Zygote

from optuna_quant.evaluation import timeout


class ForkedCommand:
    """A command that runs here, with the environment that this process has now.

    Args:
        zygote:
            The process that forks it.
        args:
            The arguments of the command.
        out:
            What it writes to instead of a file, whose text is then not given.
        ignored:
            The signals that are ignored when it begins.
    """

    def __init__(
        self,
        zygote: Zygote,
        args: Sequence[str],
        *,
        out: Path | None = None,
        ignored: Sequence[int] = (),
    ) -> None:
        self._zygote = zygote
        self._args = list(args)
        self._folder = tempfile.TemporaryDirectory()
        self.pid = zygote.start(
            "cli.forked_commands:run",
            args=self._args,
            folder=os.getcwd(),
            environment=dict(os.environ),
            streams=self._folder.name,
            out=None if out is None else str(out),
            ignored=[int(number) for number in ignored],
        )

    def end(self, *, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Wait for it; gives its exit status and what it has written."""
        status, _ = self._zygote.wait(self.pid, timeout=timeout)
        files = [Path(self._folder.name) / name for name in ("out", "err")]
        texts = [file.read_text() if file.exists() else "" for file in files]
        self._folder.cleanup()
        return subprocess.CompletedProcess(self._args, status, *texts)


def run(
    args: list[str],
    folder: str,
    environment: dict[str, str],
    streams: str,
    out: str | None,
    ignored: list[int],
) -> None:
    """Do what ``optuna-quant`` does, in a process that was forked."""
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out or f"{streams}/out"), (2, f"{streams}/err")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv[1:] = args
    timeout._SHORTEST_GRACE_SECONDS = 0.2  # For evaluations that never react.
    from optuna_quant.cli import main

    sys.exit(main())
