"""The command ``optuna-quant dashboard``."""

from __future__ import annotations

import argparse
import contextlib

from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.artifact_dir import add_artifact_dir
from optuna_quant.cli.artifact_dir import artifact_store
from optuna_quant.cli.exit_codes import MET
from optuna_quant.cli.listening import add_address
from optuna_quant.cli.messages import say
from optuna_quant.cli.recorded import add_recorded
from optuna_quant.cli.recorded import recorded_storage


def add_dashboard(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "dashboard",
        help="show the studies of a storage in optuna-dashboard",
        description="Show the studies of a storage in optuna-dashboard, also while workers "
        "search. The outcome of each study (a note, plots, and the table of the best trial if "
        "there is an --artifact-dir) is written into the study; what is shown of its trials is "
        "not. It does not ask for a password.",
    )
    add_recorded(parser, "all studies of the storage")
    add_address(parser, port=8080, least=0)
    add_artifact_dir(
        parser,
        "a directory for files of the studies, made if it is not there: that of tune, to download "
        "models",
    )
    parser.add_argument(
        "--max-parameters",
        type=_count,
        metavar="N",
        help="show at most N parameters of each trial, those that differ most; with many the "
        "pages are slow (default: 40; with more than 256 trials 20, with more than 512 10, with "
        "more than 1024 5)",
    )
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant dashboard --storage model.int8.optuna_quant.journal",
        "optuna-quant dashboard --storage sqlite:///studies.db --artifact-dir artifacts",
    )


def run(args: argparse.Namespace) -> int:
    """Serve the dashboard until Ctrl-C."""
    import optuna

    from optuna_quant._common.nearest import did_you_mean
    from optuna_quant.dashboard.serve import serving
    from optuna_quant.storages.address import check_file_exists
    from optuna_quant.storages.open import open_storage

    address, name = recorded_storage(args)
    check_file_exists(address, "--storage")
    storage = open_storage(address, heartbeat=False)
    names = optuna.get_all_study_names(storage)
    if name is not None and name not in names:
        raise ValueError(
            f"--study-name: there is no study {name!r} in the storage.{did_you_mean(name, names)}"
        )
    with serving(
        storage,
        host=args.host,
        port=args.port,
        study_name=name,
        artifact_store=artifact_store(args),
        max_parameters=args.max_parameters,
    ) as server:
        say(f"The dashboard is at http://{args.host}:{server.server_port}/ Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return MET


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"it must not be negative, but is {value}")
    return value
