"""The command ``optuna-quant plot``."""

from __future__ import annotations

import argparse

from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.options import model_given
from optuna_quant.cli.recorded import add_recorded
from optuna_quant.cli.recorded import recorded_study
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table


def add_plot(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "plot",
        help="draw a search: sensitivities, precisions, the trade-off, ...",
        description="Draw a plot of a search, from its storage alone, also while it goes on. "
        "Without KIND, list the plots.",
    )
    parser.add_argument("kind", metavar="KIND", nargs="?", help="which plot")
    add_recorded(parser)
    parser.add_argument("--model", metavar="MODEL", help="the ONNX model, for a plot of its graph")
    parser.add_argument(
        "--trial", metavar="N", type=int, help="the trial, for a plot of one (default: the best)"
    )
    parser.add_argument(
        "--output",
        "-o",
        metavar="OUT.html",
        help="the file: a page (.html) or an image (.png, .svg, .pdf) (default: KIND.html)",
    )
    add_format(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant plot",
        "optuna-quant plot tradeoff --output tradeoff.html",
    )


def run(args: argparse.Namespace) -> int:
    """Draw a plot, or list them."""
    from optuna_quant._common.nearest import did_you_mean
    from optuna_quant.cli.endings import check_ending
    from optuna_quant.cli.loading import existing_file
    from optuna_quant.tuning.output import check_output
    from optuna_quant.visualization.plots import PLOTS
    from optuna_quant.visualization.plots import SUFFIXES
    from optuna_quant.visualization.plots import save_plot

    if args.kind is None:
        if args.output or args.trial is not None or args.model:
            raise ValueError(f"KIND is missing: which plot to draw, one of {', '.join(PLOTS)}.")
        return _list(args.format)
    if args.kind not in PLOTS:
        raise ValueError(
            f"KIND: there is no plot {args.kind!r}.{did_you_mean(args.kind, PLOTS)} The plots "
            f"are: {', '.join(PLOTS)}."
        )
    needs_model = PLOTS[args.kind].needs_model
    model = model_given(args) if needs_model else args.model
    if needs_model and model is None:
        raise ValueError(f"The plot {args.kind} needs --model MODEL.")
    inputs = {} if model is None else {"model": existing_file("--model", model)}
    output = args.output or f"{args.kind}.html"
    check_output(output, inputs=inputs)
    check_ending("--output", output, SUFFIXES)
    save_plot(recorded_study(args), args.kind, output, model=model, trial=args.trial)
    print(f"written: {output}")
    return exit_codes.MET


def _list(form: str) -> int:
    import pandas as pd

    from optuna_quant.visualization.plots import PLOTS

    rows = [
        {"plot": name, "shows": plot.about, "needs": "--model" if plot.needs_model else ""}
        for name, plot in PLOTS.items()
    ]
    print_table(pd.DataFrame(rows), form)
    return exit_codes.MET
