"""The command ``optuna-quant report``."""

from __future__ import annotations

import argparse
import contextlib
import html
import json
from pathlib import Path
import re

from optuna_quant._common.printable import printable
from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.endings import check_ending
from optuna_quant.cli.recorded import add_recorded
from optuna_quant.cli.recorded import recorded_study


ENDINGS = (".html", ".json")


def add_report(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "report",
        help="write a report of a search, from its storage",
        description="Write a report of a search that has ended or still goes on, from its "
        "storage alone: as a page, or with all facts for programs. What only the model or its "
        "runtime can tell is in the report that tune --report writes.",
    )
    add_recorded(parser)
    parser.add_argument(
        "--output",
        "-o",
        metavar="OUT.html",
        default="report.html",
        help="the file: a page (.html, which needs jinja2), or all facts (.json) (default: "
        "report.html)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the file also if it is no report of the same study",
    )
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant report",
        "optuna-quant report --storage model.int8.optuna_quant.journal --output facts.json",
    )


def _check_same_study(file: Path, study: str) -> None:
    """Refuse to replace what is no report of the study.

    Raises:
        ValueError:
            If there is such a file.
    """
    if not file.exists():
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    found = None
    if file.suffix.lower() == ".json":
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = json.loads(text)["search"]["study"]
    else:
        marked = re.search(r'<meta name="optuna-quant-study" content="([^"]*)">', text)
        found = None if marked is None else html.unescape(marked[1])
    if found == printable(study) or found == study:
        return
    what = "no report" if found is None else f"the report of the study {found!r}"
    raise ValueError(
        f"--output: {str(file)!r} is {what}, and would be replaced by the report of the study "
        f"{study!r}: name another file, or give --force."
    )


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    from optuna_quant.backends.base import atomic_write
    from optuna_quant.report import check_report
    from optuna_quant.report import collect_recorded

    check_ending("--output", args.output, ENDINGS)
    file = check_report(args.output)
    found = collect_recorded(recorded_study(args))
    if not args.force:
        _check_same_study(file, found.search.study)
    text = found.to_json() if file.suffix.lower() == ".json" else found.to_html()
    atomic_write(file, text.encode(errors="backslashreplace"))
    print(f"report: {file}")
    return exit_codes.MET
