"""What shows progress, and the plainest of it: lines in a log."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import sys
from types import TracebackType
from typing import TYPE_CHECKING
from typing import Protocol
from typing import TextIO

from optuna_quant._common.printable import printable
from optuna_quant._common.steps import LateTeller


if TYPE_CHECKING:
    from typing import Self

    from optuna_quant.callbacks.trial_line import TrialLine


@dataclass(frozen=True)
class Running:
    """A trial that runs.

    Args:
        number:
            Its number.
        tries:
            What it tries; empty if that is not known.
        samples:
            How many samples it has seen.
        of:
            How many there are; :obj:`None` if it does not go sample by sample.
        metric:
            Its metric so far, in words; empty if that is not known.
    """

    number: int
    tries: str
    samples: int = 0
    of: int | None = None
    metric: str = ""

    def __str__(self) -> str:
        parts = [f"trial {self.number}: {self.tries}" if self.tries else f"trial {self.number}"]
        if self.of is not None:
            parts.append(f"{self.samples} of {self.of} samples")
        return ", ".join([*parts, *([f"metric {self.metric}"] if self.metric else [])])


class Display(Protocol):
    """Shows lines and, if it is live, what is going on."""

    @property
    def is_live(self) -> bool:
        """Whether it shows what is going on, so that it is worth telling."""
        ...

    def add(self, line: TrialLine) -> None:
        """Show a trial that has ended.

        The command does not write the warning that a trial has failed, because this line says the
        same. A display that holds lines back must show those whose mood is ``Mood.FAILED``.
        """
        ...

    def update(self, running: Sequence[Running]) -> None:
        """Show the trials that run."""
        ...

    def doing(self, what: str) -> None:
        """Show what is done outside of trials."""
        ...

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and leave the lines alone."""
        ...


class LineDisplay:
    """A plain line for each trial, for logs and pipes; and of other steps that take long.

    Each trial has one because that of a failed trial stands for the warning that the command does
    not write (:meth:`Display.add`).

    Args:
        stream:
            Where to write. Default: ``sys.stderr`` as it is when a line is written.
    """

    is_live = False

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._steps = LateTeller(self._write)

    def add(self, line: TrialLine) -> None:
        """Write a line."""
        self._write(str(line))

    def _write(self, line: str) -> None:
        stream = self._stream or sys.stderr
        encoding = getattr(stream, "encoding", None) or "utf-8"
        text = printable(line).encode(encoding, "backslashreplace").decode(encoding)
        with contextlib.suppress(OSError, ValueError):  # It may have no reader.
            print(text, file=stream, flush=True)

    def update(self, running: Sequence[Running]) -> None:
        """Nothing: a log has what is over."""

    def doing(self, what: str) -> None:
        """Write a line if it takes long."""
        self._steps(what)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._steps("")


class NoDisplay(LineDisplay):
    """Shows nothing."""

    def add(self, line: TrialLine) -> None:
        """Nothing."""

    def doing(self, what: str) -> None:
        """Nothing."""
