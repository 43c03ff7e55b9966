"""The command ``optuna-quant strategies``."""

from __future__ import annotations

import argparse
import inspect

from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.plugins import add_plugin
from optuna_quant.cli.plugins import with_plugins
from optuna_quant.cli.tables import add_format
from optuna_quant.cli.tables import print_table


def add_strategies(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "strategies",
        help="list the strategies of a search",
        description="List the strategies of a search: what each does, what it needs, and (with "
        "-f json) its options for --strategy-kwargs.",
    )
    add_plugin(parser)
    add_format(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant strategies",
        "optuna-quant strategies -f json",
    )


def run(args: argparse.Namespace) -> int:
    """Show the strategies."""
    import pandas as pd

    from optuna_quant.samplers import strategies
    from optuna_quant.tuning.strategies import needs_of
    from optuna_quant.tuning.strategies import sampler_options

    with_plugins(args, {})
    rows = [
        {
            "strategy": name,
            "what it does": _first_sentence(cls),
            "needs": needs_of(name),
            "options": ", ".join(sampler_options(cls)),
        }
        for name, cls in strategies().items()
    ]
    frame = pd.DataFrame(rows)
    print_table(frame, args.format, ["strategy", "what it does", "needs"])
    return exit_codes.MET


def _first_sentence(cls: type) -> str:
    """The first sentence of a class's docstring, without markup."""
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    sentence = text.partition(". ")[0].rstrip(".:")
    for markup in ("``", ":class:", "`~", "`"):
        sentence = sentence.replace(markup, "")
    return sentence
