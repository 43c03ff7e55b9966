"""Print what makes a shell complete the command."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
import sys
from typing import Any


SHELLS = ("bash", "zsh", "fish")

# Options whose values are files, by what stands for them in the help.
_OF_FILES = ("MODEL", "FILE", ".npz", ".onnx", ".toml", ".csv", ".py", "DIR")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints it.

    Args:
        parser:
            The parser of the whole command.
    """
    parser.add_argument(
        "--print-completion",
        action=_Print,
        choices=SHELLS,
        metavar="SHELL",
        help="print what makes a shell (bash, zsh or fish) complete the command, and exit",
    )


class _Print(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        import shtab

        for action in _actions(parser):
            _complete(action)
        sys.stdout.write(shtab.complete(parser, given[1]))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action


def _complete(action: Any) -> None:
    """Say what completes the value of an option."""
    import shtab

    if action.dest == "strategy":
        action.choices = _names_of_strategies()
    elif action.dest == "metric":
        action.choices = _names_of_metrics()
    elif action.choices is None and any(part in _metavars(action) for part in _OF_FILES):
        action.complete = shtab.FILE


def _metavars(action: argparse.Action) -> str:
    shown = action.metavar
    return " ".join(shown) if isinstance(shown, tuple) else str(shown or "")


def _names_of_strategies() -> Iterable[str]:
    from optuna_quant.samplers import strategies

    return list(strategies())


def _names_of_metrics() -> Iterable[str]:
    from optuna_quant.evaluation.metrics.named import metrics

    return list(metrics())
