"""A small table for notebooks, in HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from optuna_quant._common.printable import printable


_CELL = "text-align: left"


def notebook_table(head: str, rows: Iterable[tuple[str, str]]) -> str:
    """A sentence and a table with two columns; whatever names hold is escaped.

    Args:
        head:
            The sentence above the table; empty for none.
        rows:
            What each value is, and the value.
    """
    body = "".join(
        f'<tr><th style="{_CELL}">{_shown(name)}</th><td style="{_CELL}">{_shown(text)}</td></tr>'
        for name, text in rows
    )
    said = f"<p><b>{_shown(head)}</b></p>" if head else ""
    return f"<div>{said}<table>{body}</table></div>"


def _shown(text: str) -> str:
    return escape(printable(text))
