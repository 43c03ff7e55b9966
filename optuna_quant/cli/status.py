"""The command ``optuna-quant status``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.options import add_config
from optuna_quant.cli.options import add_some
from optuna_quant.cli.options import given_options
from optuna_quant.cli.options import storage_given
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table
from optuna_quant.tuning.options.request import TuneOptions


if TYPE_CHECKING:
    from optuna_quant.tuning.status import Status


JOURNALS = "*.optuna_quant.journal"
_HELP = {
    "storage": "where the study is kept, as for tune (default: the environment variable "
    f"OPTUNA_STORAGE, otherwise the only file {JOURNALS} in this directory)",
    "study_name": "its name there (default: all studies)",
}
_COLUMNS = ("study", "verdict", "best", "evaluated", "running", "workers", "seconds")


def add_status(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "status",
        help="tell where a search stands, also while others work on it",
        description="Tell where a search stands: its verdict, the best trial, who works on it. "
        "It reads the storage alone and changes nothing. The exit code is 0 if a model meets the "
        "criterion (of all studies that are shown), and 1 if not.",
    )
    add_config(parser)
    add_some(parser, TuneOptions, _HELP, _HELP)
    add_format(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")


def run(args: argparse.Namespace) -> int:
    """Show where the search of one study, or of all, stands."""
    import optuna

    from optuna_quant.storages.open import open_storage
    from optuna_quant.tuning.recorded_study import find_recorded
    from optuna_quant.tuning.status import status_of

    given = given_options(args, TuneOptions, only=_HELP)
    storage, name = storage_given(given) or only_journal(), given.get("study_name")
    if name is None:
        find_recorded_storage(storage)
        opened = open_storage(storage, heartbeat=False)
        studies = [
            optuna.load_study(storage=opened, study_name=each)
            for each in optuna.get_all_study_names(opened)
        ]
    else:
        studies = [find_recorded(storage, str(name), "")]
    if not studies:
        raise ValueError("--storage: it holds no study yet.")
    found = [status_of(study) for study in studies]
    _show(found, args.format)
    return exit_codes.MET if all(s.verdict == "met" for s in found) else exit_codes.NOT_MET


def find_recorded_storage(storage: str) -> None:
    """Refuse a storage that is not there, which would be made."""
    from optuna_quant.storages.address import check_file_exists

    check_file_exists(storage, "--storage")


def only_journal() -> str:
    """The only journal file in this directory.

    Raises:
        ValueError:
            If there is none, or there are several.
    """
    found = sorted(map(str, Path().glob(JOURNALS)))
    if len(found) == 1:
        return found[0]
    there = f"several files {JOURNALS}: {', '.join(found)}" if found else f"no file {JOURNALS}"
    raise ValueError(f"Give --storage: this directory has {there}.")


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
