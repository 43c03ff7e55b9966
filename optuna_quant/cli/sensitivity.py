"""The command ``optuna-quant sensitivity``."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_quant.backends.base import SensitivityKind
from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.building import add_building
from optuna_quant.cli.building import read_building
from optuna_quant.cli.messages import say
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table


_OTHERS = ("output_names", "output")
# It is what the command writes.
_WITHOUT = ("sensitivities",)
_HELP = {
    "output_names": "the output of the model that counts; repeat it for several (default: all)",
    "output": "where to write the table (default: NAME.sensitivities.json in this directory, for "
    "a model NAME.onnx)",
}


def add_sensitivity(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = add_building(
        commands,
        "sensitivity",
        *_OTHERS,
        summary="score how sensitive a model is to the quantization of each op",
        description="Score how sensitive a model is to the quantization of each op, in each of "
        "its options: a table, and a file to be read, edited and given to tune --sensitivities. "
        "The most sensitive op comes first. No labels are needed.",
        without=_WITHOUT,
        helps=_HELP,
        metavars={"output": "OUT.json"},
    )
    add_format(parser)
    parser.add_argument(
        "--kind",
        choices=[kind.value for kind in SensitivityKind],
        default=SensitivityKind.BEST.value,
        help="what is scored: best (for the strategy auto: how far the error of each op moves the "
        "outputs, in one pass; without torch the same as op_error), op_error (for mse: the error "
        "of its own output), output_error (for mse_v2: how far it moves the outputs, with a model "
        "for each op and option) or curvature (for hawq_v2; needs torch) (default: best)",
    )
    parser.end_with_examples(
        "optuna-quant sensitivity model.onnx --calibration calib.npz --output ops.json",
        "optuna-quant tune --config tune.toml --sensitivities ops.json --study-name edited",
    )


def run(args: argparse.Namespace) -> int:
    """Score the ops of a model, write the table, and show it."""
    from optuna_quant.tuning.sensitivities.measure import sensitivity
    from optuna_quant.tuning.sensitivities.output import check_table_output
    from optuna_quant.tuning.sensitivities.output import shown

    model, given, files = read_building(args, *_OTHERS, without=_WITHOUT)
    output = Path(given.pop("output", f"{model.stem}.sensitivities.json"))
    check_table_output(output, inputs=files)
    table = sensitivity(model, kind=args.kind, **given)
    problem = None
    try:
        table.save(output)
    except OSError as error:
        problem = f"error: The output {str(output)!r} could not be written: {error}"
    if args.format == "table":
        print(shown(table))
    else:
        print_table(table.to_frame(), args.format)
    if problem is not None:
        say(problem)
        return exit_codes.FAILED
    if args.format == "table":
        print(f"written: {output}")
    else:
        say(f"written: {output}")
    return exit_codes.MET
