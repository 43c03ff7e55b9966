"""Scripts that open one storage at the same moment, each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from forked_scripts import ForkedScript
from zygote import Zygote


HEAD = """
import sys, time
import optuna
from optuna_quant.storages.journal_file import JournalFileFlock
from optuna_quant.storages.open import open_storage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
optuna.logging.set_verbosity(optuna.logging.ERROR)
address = sys.argv[1]
if not address.startswith(("redis", "journal")):
    import sqlalchemy, alembic.command, optuna.storages._rdb.models  # Slow; not part of the race.
print("ready", flush=True)
sys.stdin.readline()
"""
"""The first line that a worker prints says that it is ready; it begins at the word "go"."""


class Start(Protocol):
    """Starts a script in a process of its own."""

    def __call__(
        self, script: str, *arguments: object, cwd: Path | None = None
    ) -> ForkedScript: ...


def said(process: ForkedScript, line: str) -> None:
    assert process.stdout.readline() == f"{line}\n", process.wait()


def go(processes: Sequence[ForkedScript]) -> None:
    for process in processes:
        said(process, "ready")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()


def run(processes: Sequence[ForkedScript]) -> None:
    go(processes)
    for process in processes:
        status, errors = process.wait()
        assert status == 0, errors


def starter(zygote: Zygote) -> Start:
    """What starts such a script, which begins with :data:`HEAD`."""
    return lambda script, *arguments, cwd=None: ForkedScript(
        zygote, HEAD + script, *arguments, cwd=cwd
    )
