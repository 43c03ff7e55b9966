"""The command ``optuna-quant``.

Modules that take long to import are imported by the commands, each in a file of its name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import errno
from functools import partial
from importlib import import_module
import io
import os
import sys
import threading
import traceback
from typing import cast

from optuna_quant._common.printable import printable
from optuna_quant._common.version import __version__
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.artifact_dir import add_artifact_dir
from optuna_quant.cli.compare import add_compare
from optuna_quant.cli.completion import add_completion
from optuna_quant.cli.dashboard import add_dashboard
from optuna_quant.cli.evaluate import add_evaluate
from optuna_quant.cli.exit_codes import BAD_INPUT
from optuna_quant.cli.exit_codes import EXPLAINED
from optuna_quant.cli.exit_codes import FAILED
from optuna_quant.cli.exit_codes import INTERRUPTED
from optuna_quant.cli.export import add_export
from optuna_quant.cli.init import add_init
from optuna_quant.cli.messages import is_said_here
from optuna_quant.cli.messages import messages
from optuna_quant.cli.messages import noted_interrupts
from optuna_quant.cli.messages import with_flags
from optuna_quant.cli.messages import write_line
from optuna_quant.cli.options import SPACE_OPTIONS
from optuna_quant.cli.options import add_config
from optuna_quant.cli.options import add_model
from optuna_quant.cli.options import add_options
from optuna_quant.cli.options import add_some
from optuna_quant.cli.options import rare_options
from optuna_quant.cli.plot import add_plot
from optuna_quant.cli.plugins import add_plugin
from optuna_quant.cli.quantize import add_quantize
from optuna_quant.cli.report import add_report
from optuna_quant.cli.sensitivity import add_sensitivity
from optuna_quant.cli.serve import add_serve
from optuna_quant.cli.standard_streams import standard_streams
from optuna_quant.cli.status import add_status
from optuna_quant.cli.strategies import add_strategies
from optuna_quant.cli.tables import add_format
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.workers.launch import Rank
from optuna_quant.workers.launch import this_rank


# The commands that add themselves, in the order of the help.
_OTHERS = (
    add_quantize,
    add_evaluate,
    add_compare,
    add_sensitivity,
    add_status,
    add_report,
    add_plot,
    add_export,
    add_strategies,
    add_init,
    add_serve,
    add_dashboard,
)

# The threads in which batches are run; they end with the evaluation, unless a run hangs.
THREADS = "optuna_quant_data"

# A full disk, a quota, a broken disk.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

_LONG = f"""\
{EXPLAINED}
lines of progress:
  "met, and the search goes on": the model is good enough, but the strategy sees a chance to
  quantize more of it. It continues, and returns to this one if it finds nothing better.
"""

_ABOUT_EVALUATE = """\
  where my_eval.py has a function that gets an onnxruntime.InferenceSession and returns the
  metric as one number:

    def evaluate(session):
        scores = session.run(None, {"x": X})[0]
        return (scores.argmax(axis=1) == Y).mean()
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv:
            The arguments. Default: those of the process.

    Returns:
        The exit code: 0 met, 1 not met, 2 bad input, 3 failed on the way, 4 no gain, 130
        interrupted.
    """
    with standard_streams() as streams:
        code, is_outcome = _main(argv)
        lost = streams.lost_output()
        if lost is not None:
            print(f"optuna-quant: the output could not be written: {lost}", file=sys.stderr)
            # An outcome holds without a reader; of another command the output is all there is.
            code = code if is_outcome else code or FAILED
    if argv is None and any(t.name.startswith(THREADS) for t in threading.enumerate()):
        os._exit(code)  # Python would wait for a run that was given up and does not come back.
    return code


def _main(argv: Sequence[str] | None) -> tuple[int, bool]:
    """Run the command; gives the exit code, and whether it is an outcome on what was searched."""
    try:
        rank = this_rank()
    except ValueError as error:
        print(f"optuna-quant: error: {error}", file=sys.stderr)
        return BAD_INPUT, False
    speaker = "optuna-quant" if rank.is_leader else f"optuna-quant: rank {rank.number}"
    try:
        args = _parse(argv, rank, speaker)
        args.words = ["optuna-quant", *(sys.argv[1:] if argv is None else argv)]
    except SystemExit as error:  # argparse has said what is wrong, or has shown the help.
        return error.code if isinstance(error.code, int) else BAD_INPUT, False
    return _run(args, rank, speaker), args.command == "tune"


def _run(args: argparse.Namespace, rank: Rank, speaker: str) -> int:
    is_search = args.command == "tune"
    with noted_interrupts() as interrupts:
        try:
            with (
                exits_are_errors("Something that this command has called"),
                messages(speaker, verbose=args.verbose, quiet=getattr(args, "quiet", False)),
            ):
                command = import_module(f"optuna_quant.cli.{args.command}")
                return int(command.run(args, rank) if is_search else command.run(args))
        except KeyboardInterrupt:
            before = " before the search had started; the same command starts it"
            print(f"{speaker}: interrupted{before if is_search else ''}", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            return _say_what_is_wrong(
                speaker, error, verbose=args.verbose, interrupted=bool(interrupts)
            )


def _parse(argv: Sequence[str] | None, rank: Rank, speaker: str) -> argparse.Namespace:
    """The arguments. Of processes that were started together one shows the help."""
    shown = (
        contextlib.nullcontext() if rank.is_leader else contextlib.redirect_stdout(io.StringIO())
    )
    with shown:
        found: argparse.Namespace = command_parser(speaker).parse_args(argv)
    return found


def _say_what_is_wrong(speaker: str, error: Exception, *, verbose: bool, interrupted: bool) -> int:
    if verbose:
        traceback.print_exc()
    text = printable(" ".join(str(error).split())) or type(error).__name__
    expected = isinstance(error, ValueError | TypeError | OSError | ImportError)
    kind = "" if expected else f"{type(error).__name__}: "
    if interrupted:
        print(f"{speaker}: interrupted ({kind}{text})", file=sys.stderr)
        return INTERRUPTED
    hint = "" if verbose or (expected and is_said_here(error)) else " (--verbose shows where)"
    write_line(f"{speaker}: error: {kind}{with_flags(text)}{hint}")
    return BAD_INPUT if expected and not _is_of_the_machine(error) else FAILED


def _is_of_the_machine(error: Exception) -> bool:
    """Whether it is no fault of what was given: a lost server, a full disk."""
    from optuna_quant.storages.errors import StorageError

    return isinstance(error, ConnectionError | TimeoutError | StorageError) or (
        isinstance(error, OSError) and error.errno in _MACHINE
    )


def command_parser(speaker: str = "optuna-quant") -> CommandParser:
    """The parser of the whole command.

    Args:
        speaker:
            Who speaks in its messages.
    """
    parser = CommandParser(
        speaker=speaker,
        prog="optuna-quant",
        description="Find a quantized version of a model that keeps to an accuracy criterion.",
        epilog=f"optuna-quant COMMAND --help tells about one of them.\n\n{EXPLAINED}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"optuna-quant {__version__}")
    add_completion(parser)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        parser_class=cast("type[CommandParser]", partial(CommandParser, speaker=speaker)),
    )
    tune = commands.add_parser(
        "tune",
        help="search for a quantized model that meets the criterion",
        description="Search for a quantized model that meets an accuracy criterion.\n\nRun "
        "again, the same command continues where it stopped; run several times on "
        "one\n--storage, or under mpirun or srun, it shares the work.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_tune(tune)
    tune.hide(rare_options(TuneOptions), _LONG)
    tune.end_with_examples(
        "optuna-quant tune model.onnx --calibration calib.npz --data eval.npz --timeout 10m",
        "optuna-quant tune model.onnx --calibration calib.npz --evaluate my_eval.py:evaluate",
        note=_ABOUT_EVALUATE,
    )
    space = commands.add_parser(
        "space",
        help="show which ops of a model can be quantized, and how",
        description="Show the tuning space of a model: a row for each op.",
    )
    _add_space(space)
    space.end_with_examples(
        "optuna-quant space model.onnx",
        "optuna-quant space model.onnx --calibration calib.npz --save-costs costs.json",
    )
    for add in _OTHERS:
        add(commands)
    parser.commands = dict(commands.choices)
    return parser


def _add_tune(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "the ONNX model; it is not changed")
    add_config(parser)
    add_plugin(parser)
    groups = add_options(parser, TuneOptions)
    group = groups["output and record"]
    group.add_argument(
        "--closest",
        action="store_true",
        help="if no model meets the criterion, write the one that comes closest",
    )
    group.add_argument(
        "--report",
        metavar="OUT.html",
        help="write a report: as a page (.html, which needs jinja2), with all facts for programs "
        "(.json), or as a table of what each op was asked to run and what it runs (.csv)",
    )
    add_artifact_dir(
        group,
        "a directory, made if it is not there, for the models that meet the criterion and are on "
        "the front of metric against cost: optuna-quant dashboard with the same one offers them "
        "for download",
    )
    group.add_argument(
        "--fresh",
        action="store_true",
        help="start over: delete what an earlier command found for this model",
    )
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="show only the result")
    volume.add_argument(
        "--verbose", action="store_true", help="show all messages, and where an error comes from"
    )


_OF_SPACE = {
    "calibration_data": "calibration samples, as for tune; the cost of each op is measured on "
    "the first one",
    "inputs": "an input that is the same for all samples, as for tune",
}


def _add_space(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "the ONNX model; it is not changed")
    add_config(parser)
    add_some(parser, TuneOptions, SPACE_OPTIONS, _OF_SPACE)
    add_format(parser)
    parser.add_argument(
        "--why",
        action="store_true",
        help="show the ops that are left out instead, and why",
    )
    parser.add_argument(
        "--save-costs", metavar="FILE", help="write what each op costs to a JSON file"
    )
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
