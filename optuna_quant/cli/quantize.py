"""The command ``optuna-quant quantize``."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.building import add_building
from optuna_quant.cli.building import check_calibration
from optuna_quant.cli.building import read_building
from optuna_quant.cli.building import write_built
from optuna_quant.cli.endings import MODELS
from optuna_quant.cli.endings import REPORTS
from optuna_quant.cli.endings import check_ending


_OTHERS = ("data", "metric", "output_names", "output")
_HELP = {
    "data": "labelled data: measure the model beside FP32 on them, as compare does",
    "metric": "the metric on --data, as for tune (default: accuracy)",
    "output": "where to write the model (default: NAME.quantized.onnx in this directory, for a "
    "model NAME.onnx)",
}


def add_quantize(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = add_building(
        commands,
        "quantize",
        *_OTHERS,
        summary="quantize a model in one given way, without a search",
        description="Quantize a model in one given way, without a search: every op in its first "
        "option, or as a file says. Nothing is evaluated unless --data is given, and no criterion "
        "is checked.",
        helps=_HELP,
    )
    parser.add_argument(
        "--ops",
        metavar="CONFIG",
        help="how each op is quantized: 'default'; the label of an option for all ops that have "
        "it, such as 'dynamic w=...' (space --json lists them); a JSON file of "
        "QuantConfig.to_json; or a CSV file of tune --report (default: 'default')",
    )
    parser.add_argument(
        "--report", metavar="OUT.csv", help="write what each op was asked to run, and what it runs"
    )
    parser.end_with_examples(
        "optuna-quant quantize model.onnx --calibration calib.npz --output model.int8.onnx",
        "optuna-quant quantize model.onnx --approach dynamic --data eval.npz",
    )


def run(args: argparse.Namespace) -> int:
    """Quantize a model, write it, and say what it is."""
    from optuna_quant.cli.loading import data_path
    from optuna_quant.tuning.chosen_config import is_named
    from optuna_quant.tuning.output import check_output
    from optuna_quant.tuning.quantize import quantize

    model, given, files = read_building(args, *_OTHERS)
    check_calibration(given)
    measured = {name: given.pop(name) for name in _OTHERS if name in given}
    output = Path(measured.pop("output", f"{model.stem}.quantized.onnx"))
    if measured and "data" not in measured:
        flag = "--metric" if "metric" in measured else "--output-name"
        raise ValueError(f"{flag} needs --data.")
    if "data" in measured:
        data_path("--data", measured["data"])
    if not is_named(args.ops):
        files["file of --ops"] = Path(args.ops)
    check_output(output, inputs=files)
    if args.report is not None:
        check_output(args.report, "report", inputs={**files, "output": output})
    check_ending("--output", output, MODELS)
    check_ending("--report", args.report, REPORTS)
    built = quantize(model, config=args.ops, **given)
    compared = (lambda: str(built.compare(**measured))) if measured else None
    return write_built(built, output, args.report, compared)
