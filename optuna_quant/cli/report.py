"""The command ``optuna-quant report``."""

from __future__ import annotations

import argparse

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
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    from optuna_quant.backends.base import atomic_write
    from optuna_quant.report import check_report
    from optuna_quant.report import collect_recorded

    check_ending("--output", args.output, ENDINGS)
    file = check_report(args.output)
    found = collect_recorded(recorded_study(args))
    text = found.to_json() if file.suffix.lower() == ".json" else found.to_html()
    atomic_write(file, text.encode(errors="backslashreplace"))
    print(f"report: {file}")
    return exit_codes.MET
