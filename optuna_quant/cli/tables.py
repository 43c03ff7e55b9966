"""Tables as the command shows them: for people, as JSON or as CSV."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys
from typing import TYPE_CHECKING

from optuna_quant._common.printable import printable
from optuna_quant.cli.messages import with_flags


if TYPE_CHECKING:
    import pandas as pd


FORMS = ("table", "json", "csv")


def add_format(parser: argparse.ArgumentParser, forms: Sequence[str] = FORMS) -> None:
    """Add the option that says in which form a command shows its table.

    Args:
        parser:
            The parser.
        forms:
            Those that the command has.
    """
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "-f",
        "--format",
        choices=forms,
        default="table",
        help=f"how to show it: {', '.join(forms)} (default: table)",
    )
    for name in forms[1:]:
        form.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=argparse.SUPPRESS
        )


def print_table(frame: pd.DataFrame, form: str, columns: Sequence[str] | None = None) -> None:
    """Print a table.

    Args:
        frame:
            The table.
        form:
            One of :data:`FORMS`; JSON and CSV have all columns.
        columns:
            The columns that people are shown. Default: all.
    """
    if form == "json":
        print(frame.to_json(orient="records", indent=2))
    elif form == "csv":
        print(frame.to_csv(index=False), end="")
    else:
        _print_for_people(frame if columns is None else frame[list(columns)])


def _print_for_people(frame: pd.DataFrame) -> None:
    rows = [list(frame.columns), *frame.astype(str).to_numpy().tolist()]
    rows = [[printable(with_flags(text)) for text in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(rows[0], rows[1:])
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip())


def _print_rich(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal: columns as wide as it allows, and the rest of a text below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(file=sys.stdout).print(table)
