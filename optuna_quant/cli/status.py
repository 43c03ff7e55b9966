"""The command ``optuna-quant status``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.recorded import add_recorded
from optuna_quant.cli.recorded import recorded_studies
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table


if TYPE_CHECKING:
    from optuna_quant.tuning.status import Status


_COLUMNS = ("study", "outcome", "best", "evaluated", "running", "workers", "seconds")


def add_status(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "status",
        help="tell where a search stands, also while others work on it",
        description="Tell where a search stands: its outcome, the best trial, who works on it. "
        "It reads the storage alone and changes nothing. The exit code is 0 if a model meets the "
        "criterion (of all studies that are shown), and 1 if not.",
    )
    add_recorded(parser, "all studies")
    add_format(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant status",
        "optuna-quant status --storage model.int8.optuna_quant.journal -f json",
    )


def run(args: argparse.Namespace) -> int:
    """Show where the search of one study, or of all, stands."""
    from optuna_quant.tuning.status import NOT_OURS
    from optuna_quant.tuning.status import status_of

    found = [status_of(study) for study in recorded_studies(args)]
    _show(found, args.format)
    searches = [s for s in found if s.outcome != NOT_OURS] or found
    return exit_codes.MET if all(s.outcome == "met" for s in searches) else exit_codes.NOT_MET


def _show(found: list[Status], form: str) -> None:
    if form == "json":
        print(json.dumps([each.to_dict() for each in found], indent=2))
        return
    if form == "table" and len(found) == 1:
        print(found[0])
        return
    import pandas as pd

    rows = [{**each.to_dict(), "workers": sum(each.workers.values())} for each in found]
    frame = pd.DataFrame(rows)
    frame["seconds"] = frame["seconds"].round(1)
    print_table(frame, form, _COLUMNS)
