"""The command ``optuna-quant evaluate``."""

from __future__ import annotations

import argparse
import json

from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.options import add_config
from optuna_quant.cli.options import add_model
from optuna_quant.cli.options import add_some
from optuna_quant.cli.options import given_options
from optuna_quant.cli.options import required_model
from optuna_quant.cli.plugins import add_plugin
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table
from optuna_quant.tuning.options.request import TuneOptions


_HELP = {
    "data": "labelled data for the metric, as for tune",
    "metric": "the metric on --data, as for tune (default: accuracy)",
    "evaluate": "instead of --data: a function of the session, as for tune",
    "metric_bounds": "the lowest and the highest score that a sample can have",
    "output_names": "the output of the model that the metric scores (default: the first)",
    "inputs": "an input that is the same for all samples, as for tune",
    "transform": "function that turns one sample of the data into the input, as for tune",
    "batch_size": "how many samples to run at once",
    "threads": "the threads of a run (default: all cores)",
}


def add_evaluate(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "evaluate",
        help="measure the metric of one model, with its interval",
        description="Measure the metric of one model, in FP32 or quantized, on all samples, and "
        "between which values it is on other samples of the kind.",
    )
    add_model(parser, "the ONNX model")
    add_config(parser)
    add_plugin(parser)
    add_some(parser, TuneOptions, _HELP, _HELP)
    add_format(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant evaluate model.onnx --data eval.npz",
        "optuna-quant evaluate model.int8.onnx --data eval.npz --metric top5 -f json",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate a model."""
    from optuna_quant.cli.loading import data_path
    from optuna_quant.cli.values import read_values
    from optuna_quant.tuning.evaluated import evaluate_model

    model = required_model(args)
    given = given_options(args, TuneOptions, only=_HELP)
    if (given.get("data") is None) == (given.get("evaluate") is None):
        raise ValueError(
            "Give either --data X.npz (labelled data) or --evaluate FILE.py:FUNC (a function of "
            "your own)."
        )
    if given.get("data") is not None:
        data_path("--data", str(given["data"]))
    found = evaluate_model(model, **read_values(given, TuneOptions))
    if args.format == "json":
        print(json.dumps(found.to_dict(), indent=2))
    elif args.format == "csv":
        import pandas as pd

        low, high = found.interval or (None, None)
        row = {**found.to_dict(), "low": low, "high": high}
        print_table(pd.DataFrame([row]).drop(columns="interval"), "csv")
    else:
        print(found)
    return exit_codes.MET
