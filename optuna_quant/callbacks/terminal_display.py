"""Progress on a terminal: a row for each trial, and a live view of the search below them."""

from __future__ import annotations

from collections.abc import Sequence
import logging
import sys
import time
from typing import TYPE_CHECKING
from typing import TextIO

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optuna_quant._common.printable import printable


if TYPE_CHECKING:
    from typing import Self

    from rich.console import Console
    from rich.console import RenderableType

    from optuna_quant.callbacks.display import Running
    from optuna_quant.callbacks.trial_line import TrialLine


# In narrower terminals a row has its parts below each other.
_WIDE = 90
_MOST_RUNNING = 4
_PER_SECOND = 4


class TerminalDisplay:
    """Rows that scroll away, and below them what runs, the best so far and what is left.

    Args:
        console:
            The terminal.
    """

    is_live = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: tuple[Running, ...] = ()
        self._started: dict[int, float] = {}
        self._doing = ""
        self._last: TrialLine | None = None
        self._rows = 0
        self._live: Live | None = None
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def __enter__(self) -> Self:
        # What is printed meanwhile goes above the view; not so if stdout goes elsewhere.
        self._live = Live(
            console=self._console,
            get_renderable=self._view,
            transient=True,
            refresh_per_second=_PER_SECOND,
            redirect_stdout=sys.stdout.isatty(),
        )
        stream = sys.stderr
        self._live.start()
        # Optuna's handler has kept the stream that the view now stands in for.
        self._handlers = [
            (handler, stream)
            for handler in logging.getLogger("optuna").handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream
        ]
        for handler, _ in self._handlers:
            handler.setStream(sys.stderr)
        # A process that is killed leaves the cursor as it is.
        self._console.show_cursor(True)
        return self

    def __exit__(self, *ended: object) -> None:
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []
        if self._live is not None:
            self._live.stop()
            self._live = None

    def add(self, line: TrialLine) -> None:
        """Write the row of a trial."""
        self._last = line
        self._console.print(self._row(line))
        self._rows += 1

    def update(self, running: Sequence[Running]) -> None:
        """Show the trials that run."""
        now = time.monotonic()
        numbers = [each.number for each in running]
        self._started = {number: self._started.get(number, now) for number in numbers}
        self._running = tuple(running)
        self._doing = ""

    def doing(self, what: str) -> None:
        """Show what is done outside of trials."""
        self._doing = what

    def _row(self, line: TrialLine) -> RenderableType:
        number = Text(f"{line.number}", style="bold")
        decided = Text(printable(line.decided), style=line.mood.value)
        tries = Text(printable(line.tries))
        if line.shown_stage:
            stage = printable(line.shown_stage)
            tries.append(f"{' ' if line.tries else ''}({stage})", style="dim")
        if self._console.width < _WIDE:
            grid = Table.grid(padding=(0, 1))
            grid.add_column(width=3, justify="right")
            grid.add_column(overflow="fold")
            grid.add_row(number, tries)
            grid.add_row("", decided)
            return grid
        return self._wide([(number, tries, decided)], heading=not self._rows)

    def _wide(self, rows: Sequence[tuple[Text, Text, Text]], *, heading: bool) -> Table:
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(width=5, justify="right")
        grid.add_column(ratio=5, overflow="fold")
        grid.add_column(ratio=6, overflow="fold")
        if heading:
            titles = ("trial", "tries", "decided")
            grid.add_row(*(Text(title, style="dim") for title in titles))
        for row in rows:
            grid.add_row(*row)
        return grid

    def _view(self) -> RenderableType:
        """What is shown below the rows; drawn several times a second."""
        parts: list[RenderableType] = []
        running, now = self._running[:_MOST_RUNNING], time.monotonic()
        doing = self._doing or ("" if running or self._last is None else "Choosing what to try")
        if doing:
            parts.append(Text(f"{doing} ...", style="cyan"))
        for each in running:
            parts.append(self._shown_running(each, now - self._started.get(each.number, now)))
        if self._last is not None:
            parts.append(_labelled("best", printable(self._last.best)))
            parts.append(_labelled("time", self._last.left))
        return Group(*parts)

    def _shown_running(self, running: Running, seconds: float) -> RenderableType:
        text = Text(printable(str(running)), style="cyan", no_wrap=True, overflow="ellipsis")
        if running.of is None:
            text.append(f", {seconds:.0f} s")
            return text
        width = max(4, min(24, self._console.width // 5))
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=width)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(ProgressBar(total=running.of, completed=running.samples, width=width), text)
        return grid


def _labelled(label: str, text: str) -> Text:
    shown = Text(overflow="fold")
    shown.append(f"{label}: ", style="dim")
    shown.append(text)
    return shown
