"""Progress in a notebook: a table that grows in its cell."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
import time
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.printable import printable


if TYPE_CHECKING:
    from typing import Self

    from optuna_quant.callbacks.display import Running
    from optuna_quant.callbacks.trial_line import Mood
    from optuna_quant.callbacks.trial_line import TrialLine


_MOST_ROWS = 25
_SECONDS_BETWEEN = 0.5
_LEFT = "text-align: left"
# Notebooks put all cells to the right, so that a head would stand away from its texts.
_HEAD = f'<tr><th>trial</th><th style="{_LEFT}">tries</th><th style="{_LEFT}">decided</th></tr>'


class NotebookDisplay:
    """A table of the last trials, and below it what runs, the best so far and what is left."""

    is_live = True

    def __init__(self) -> None:
        self._lines: list[TrialLine] = []
        self._running: tuple[Running, ...] = ()
        self._doing = ""
        self._handle: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        from IPython.display import display

        self._handle = display(self, display_id=True)
        return self

    def __exit__(self, *ended: object) -> None:
        self._running, self._doing = (), ""
        self._draw()
        self._handle = None

    def add(self, line: TrialLine) -> None:
        """Add the row of a trial."""
        self._lines.append(line)
        self._draw()

    def update(self, running: Sequence[Running]) -> None:
        """Show the trials that run."""
        self._running, self._doing = tuple(running), ""
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN:
            self._draw()

    def doing(self, what: str) -> None:
        """Show what is done outside of trials."""
        self._doing = what
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(self)

    def __repr__(self) -> str:
        """As text, where a notebook is read without HTML."""
        return "\n".join([*map(printable, map(str, self._lines[-_MOST_ROWS:])), *self._status()])

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{line.number}</td>{_cell(line.tries or line.stage)}"
            f"{_cell(line.decided, line.mood)}</tr>"
            for line in self._lines[-_MOST_ROWS:]
        ]
        hidden = len(self._lines) - len(rows)
        note = f"<p>{hidden} earlier trials are not shown</p>" if hidden else ""
        head = _HEAD if rows else ""
        status = "".join(f"<p>{escape(text)}</p>" for text in self._status())
        return f"{note}<table>{head}{''.join(rows)}</table>{status}"

    def _status(self) -> list[str]:
        found = [f"{self._doing} ..."] if self._doing else []
        found += [printable(str(each)) for each in self._running]
        if self._lines:
            found += [f"best: {printable(self._lines[-1].best)}", self._lines[-1].left]
        return found


# Readable on white and on black.
_COLOURS = {"green": "#2a9d4a", "cyan": "#1f8fb0", "yellow": "#b07d00", "red": "#d0342c"}


def _cell(text: str, mood: Mood | None = None) -> str:
    colour = None if mood is None else _COLOURS.get(mood.value)
    style = _LEFT + (f"; color: {colour}" if colour else "")
    return f'<td style="{style}">{escape(printable(text))}</td>'
