"""The command ``optuna-quant export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.building import add_building
from optuna_quant.cli.building import read_building
from optuna_quant.cli.building import write_built
from optuna_quant.cli.endings import MODELS
from optuna_quant.cli.endings import REPORTS
from optuna_quant.cli.endings import check_ending
from optuna_quant.cli.options import storage_given


_OTHERS = ("storage", "study_name", "output")
# A trial says the option of each op.
_OF_SPACE = ("op_types", "op_type_dict", "op_name_dict", "sensitivities")
_HELP = {
    "approach": "as for tune",
    "storage": "where the study is kept, as for tune (default: what tune makes by default, "
    "NAME.quantized.optuna_quant.journal)",
    "study_name": "its name there (default: the only study, or the only one of the model)",
    "output": "where to write the model (default: NAME.trialN.onnx in this directory, for a model "
    "NAME.onnx and trial N)",
}


def add_export(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = add_building(
        commands,
        "export",
        *_OTHERS,
        summary="write the model of any trial of a study",
        description="Build the model of a finished trial of a study again, and write it. The "
        "model, the calibration data and the options must be those that the study was started "
        "with; nothing is evaluated, and the study is only read.",
        without=_OF_SPACE,
        helps=_HELP,
    )
    parser.add_argument(
        "--trial",
        metavar="N",
        default="best",
        type=_trial,
        help="the number of the trial, or 'best': the best that meets the study's criterion "
        "(default: best)",
    )
    parser.add_argument(
        "--report", metavar="OUT.csv", help="write what each op was asked to run, and what it runs"
    )
    parser.end_with_examples(
        "optuna-quant export model.onnx --calibration calib.npz --storage my.journal",
        "optuna-quant export model.onnx --calibration calib.npz --storage my.journal --trial 7",
    )


def _trial(text: str) -> int | str:
    if text == "best":
        return text
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"it must be a number or 'best', but is {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Build the model of a trial, write it, and say what it is."""
    from optuna_quant.tuning.export import export
    from optuna_quant.tuning.output import check_output
    from optuna_quant.tuning.output import storage_file

    model, given, files = read_building(args, *_OTHERS, without=_OF_SPACE)
    storage = storage_given(given) or f"{model.stem}.quantized.optuna_quant.journal"
    given.pop("storage", None)
    name, output = given.pop("study_name", None), given.pop("output", None)
    journal = storage_file(storage)
    if journal is not None:
        files["storage"] = journal
    if output is not None:
        check_output(output, inputs=files)
    if args.report is not None:
        outputs = {} if output is None else {"output": Path(output)}
        check_output(args.report, "report", inputs={**files, **outputs})
    check_ending("--output", output, MODELS)
    check_ending("--report", args.report, REPORTS)
    built = export(model, storage=storage, study_name=name, trial=args.trial, **given)
    assert built.trial is not None
    target = Path(output or f"{model.stem}.trial{built.trial.number}.onnx")
    check_output(target, inputs=files)
    return write_built(built, target, args.report)
