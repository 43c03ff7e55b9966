"""What the commands that build models without a search have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.messages import say
from optuna_quant.cli.messages import with_flags
from optuna_quant.cli.options import add_config
from optuna_quant.cli.options import add_model
from optuna_quant.cli.options import add_some
from optuna_quant.cli.options import given_options
from optuna_quant.cli.options import required_model
from optuna_quant.tuning.options.model_options import model_flags
from optuna_quant.tuning.options.request import TuneOptions


if TYPE_CHECKING:
    from optuna_quant.tuning.built import BuiltModel


_HELP = {
    "calibration_data": "calibration samples, as for tune",
    "inputs": "an input that is the same for all samples, as for tune",
    "transform": "function that turns one sample of the data into the input, as for tune",
    "threads": "the threads that ONNX Runtime uses to run a model (default: all cores)",
}


def add_building(
    commands: argparse._SubParsersAction[CommandParser],
    name: str,
    *others: str,
    summary: str,
    description: str,
    without: Sequence[str] = (),
    helps: Mapping[str, str] = MappingProxyType({}),
    metavars: Mapping[str, str] = MappingProxyType({}),
) -> CommandParser:
    """Add a command with the model, the flags that say how it is built and run, and the volume.

    Args:
        commands:
            The parser's commands.
        name:
            The command's name.
        *others:
            Further options of ``tune`` that the command has.
        summary:
            What the list of commands says of it.
        description:
            What its own ``--help`` says.
        without:
            The options for building a model that it lacks.
        helps:
            What ``--help`` says of options here, where it differs from that of ``tune``.
        metavars:
            What it calls their values here, likewise.

    Returns:
        The command's parser, for flags of its own.
    """
    parser = commands.add_parser(name, help=summary, description=description)
    add_model(parser, "the ONNX model; it is not changed")
    add_config(parser)
    names = [name for name in model_flags(*others) if name not in without]
    add_some(parser, TuneOptions, names, {**_HELP, **helps}, metavars)
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="show only the result")
    volume.add_argument(
        "--verbose", action="store_true", help="show all messages, and where an error comes from"
    )
    return parser


def read_building(
    args: argparse.Namespace, *others: str, without: Sequence[str] = ()
) -> tuple[Path, dict[str, Any], dict[str, Path]]:
    """The model, the options as Python takes them, and the files that are read, by what they are.

    Args:
        args:
            The arguments.
        *others:
            The further options of ``tune`` that the command has.
        without:
            Those that it lacks.

    Raises:
        ValueError:
            If a file is not there, or a value cannot be read.
    """
    from optuna_quant.cli.loading import existing_file
    from optuna_quant.cli.values import files_read
    from optuna_quant.cli.values import read_values

    known = {name for name in model_flags(*others) if name not in without}
    given = given_options(args, TuneOptions, only=known)
    model = required_model(args)
    files = {"model": model, **files_read(given, TuneOptions)}
    if args.config is not None:
        files["file of --config"] = existing_file("--config", args.config)
    return model, read_values(given, TuneOptions), files


def check_calibration(given: Mapping[str, Any]) -> None:
    """Say which flag is missing, where calibration data are needed and not given.

    Args:
        given:
            The options that the command was given.

    Raises:
        ValueError:
            If that is so.
    """
    approach = given.get("approach", "static")
    if given.get("calibration_data") is None and approach not in ("dynamic", "weight_only"):
        raise ValueError(
            f"--calibration is needed for --approach {approach}: an .npz file with samples like "
            "those the model will see in use. Without them, use --approach dynamic or "
            "weight_only."
        )


def write_built(
    built: BuiltModel,
    output: Path,
    report: str | None,
    then: Callable[[], str] | None = None,
) -> int:
    """Write a model that was built, and say what it is.

    Args:
        built:
            The model.
        output:
            Its file.
        report:
            The file of the report; :obj:`None` for none.
        then:
            Gives what else is said, once the files are written.

    Returns:
        The exit code.
    """
    said, problem = [str(built)], None
    try:
        built.save(output)
        said.append(f"written: {output}")
        if report is not None:
            built.report().to_csv(report, index=False)
            said.append(f"report: {report}")
    except OSError as error:
        problem = f"error: A file could not be written: {error}"
    if then is not None and problem is None:
        said.append(then())
    print(with_flags("\n".join(said)))
    if problem is not None:
        say(problem)
        return exit_codes.FAILED
    return exit_codes.MET
