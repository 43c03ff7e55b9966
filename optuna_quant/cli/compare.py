"""The command ``optuna-quant compare``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
import json

from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.options import add_config
from optuna_quant.cli.options import add_some
from optuna_quant.cli.options import given_options
from optuna_quant.cli.plugins import add_plugin
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table
from optuna_quant.tuning.options.request import TuneOptions


_HELP = {
    "data": "labelled data for the metric, as for tune",
    "metric": "the metric on --data, as for tune (default: accuracy)",
    "calibration_data": "samples without labels to run the models on, as for tune (default: those "
    "of --data, otherwise random inputs)",
    "output_names": "the output of the model that the metric scores (default: the first)",
    "inputs": "an input that is the same for all samples, as for tune",
    "transform": "function that turns one sample of the data into the input, as for tune",
    "threads": "the threads of a run (default: all cores)",
    "seed": "seed of random inputs",
}


def add_compare(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "compare",
        help="measure two models: time, size, agreement of outputs, accuracy",
        description="Measure two models in turn on the same inputs: the time of a run, the size "
        "of the file, how far the outputs agree, and the metric if data are given. B is compared "
        "with A.",
    )
    parser.add_argument("first", metavar="A.onnx", help="the first model, often FP32")
    parser.add_argument("second", metavar="B.onnx", help="the second model")
    add_some(parser, TuneOptions, _HELP, _HELP)
    for option, default, told in (
        ("--batch", 1, "samples per run, unless the model fixes it (default: 1)"),
        ("--rounds", 50, "how often each model is measured (default: 50)"),
        ("--samples", 64, "the most samples on which outputs are compared (default: 64)"),
    ):
        parser.add_argument(option, metavar="N", type=_positive, default=default, help=told)
    add_config(parser)
    add_plugin(parser)
    add_format(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant compare model.onnx model.int8.onnx --data eval.npz",
    )


def run(args: argparse.Namespace) -> int:
    """Measure two models."""
    from optuna_quant.cli.loading import data_path
    from optuna_quant.cli.loading import existing_file
    from optuna_quant.cli.values import read_values
    from optuna_quant.tuning.compare import compare

    for option, name in (("the first model", args.first), ("the second model", args.second)):
        existing_file(option, name)
    given = read_values(given_options(args, TuneOptions, only=_HELP), TuneOptions)
    data, calibration = given.get("data"), given.get("calibration_data")
    for option, name in (("--data", data), ("--calibration", calibration)):
        if name is not None:
            data_path(option, name)
    found = compare(
        args.first,
        args.second,
        data=data,
        metric=given.get("metric"),
        calibration_data=calibration,
        output_names=given.get("output_names"),
        inputs=given.get("inputs"),
        transform=given.get("transform"),
        batch=args.batch,
        threads=given.get("threads"),
        rounds=args.rounds,
        samples=args.samples,
        seed=given.get("seed", 0),
    )
    if args.format == "json":
        print(json.dumps(found.to_dict(), indent=2))
    elif args.format == "csv":
        import pandas as pd

        print_table(pd.DataFrame([dict(_flat(found.to_dict()))]), args.format)
    else:
        print(found)
    return 0


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The figures in one row, named by where they are, such as ``outputs.0.agreement``."""
    for name, each in value.items():
        if isinstance(each, list):
            each = {str(number): entry for number, entry in enumerate(each)}
        if isinstance(each, dict):
            yield from _flat(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, but is {value}")
    return value
