"""A parser that says what is wrong in one line, and shows the most used options first."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import re
from types import MappingProxyType
from typing import Any
from typing import NoReturn

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.nearest import nearest
from optuna_quant.cli.exit_codes import BAD_INPUT
from optuna_quant.cli.messages import write_line


_ALL = "--help-all"
_HAVE = ("has", "have")
# What other tools call it, or have as one value, and what that is here.
_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "--absolute": "give --criterion absolute",
        "--accuracy-criterion": "give --tolerable-loss, --criterion and --lower-is-better",
        "--calibration-sampling-size": "give --calibration-samples",
        "--loss": "give --tolerable-loss",
        "--quant-format": "models are always written with QuantizeLinear pairs (QDQ)",
        "--relative": "give --criterion relative, which is the default",
        "--tolerance": "give --tolerable-loss",
        "--tuning-criterion": "give --strategy, --timeout, --max-trials and --objective",
        "--workers": "give --jobs",
    }
)


class CommandParser(argparse.ArgumentParser):
    """A parser of the command, or of one of its commands.

    Args:
        speaker:
            Who speaks in its messages.
        **given:
            As for :class:`argparse.ArgumentParser`.
    """

    def __init__(self, *, speaker: str = "optuna-quant", **given: Any) -> None:
        super().__init__(**given)
        self._speaker = speaker
        self._rare: frozenset[str] = frozenset()
        self._shows_all = False
        self._examples = ""
        self.commands: dict[str, CommandParser] = {}

    def end_with_examples(self, *lines: str, note: str = "") -> None:
        """End the help with examples.

        Args:
            *lines:
                The examples, as they are typed.
            note:
                What they do not show by themselves.
        """
        shown = "".join(f"  {line}\n" for line in lines)
        self._examples = f"\nexamples:\n{shown}" + (f"\n{note}" if note else "")

    def hide(self, names: Iterable[str], epilog: str) -> None:
        """Show some options only with ``--help-all``.

        Args:
            names:
                The names of the options.
            epilog:
                What stands behind all of them.
        """
        self._rare = frozenset(names)
        self._long_epilog = epilog
        self.add_argument(_ALL, action=_HelpAll, help="show all options, and exit")

    def show_all(self) -> None:
        """Print the help with all options."""
        self._shows_all = True
        self.print_help()

    def format_help(self) -> str:
        """The help: the most used options, or all of them, and then the examples."""
        return self._help_of_options() + self._examples

    def _help_of_options(self) -> str:
        if not self._rare:
            return super().format_help()
        if self._shows_all:
            short, self.epilog = self.epilog, self._long_epilog
            try:
                return super().format_help()
            finally:
                self.epilog = short
        hidden = {action: action.help for action in self._actions if action.dest in self._rare}
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            return super().format_help()
        finally:
            for action, told in hidden.items():
                action.help = told

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and end."""
        text = message.removeprefix("argument ")
        missing = "the following arguments are required: "
        if text.startswith(missing):
            text = f"{text.removeprefix(missing)} is missing"
        write_line(f"{self._speaker}: error: {text} (see {self.prog} --help)")
        self.exit(BAD_INPUT)

    def parse_args(  # type: ignore[override]  # Argparse has overloads for other namespaces.
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """The arguments; one that there is not is an error that names the nearest."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = self.commands.get(getattr(found, "command", ""), self)
            parser.error(_unknown(unknown, parser.flags, self.commands))
        return found

    @property
    def flags(self) -> tuple[str, ...]:
        """All flags."""
        return tuple(self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(
            action,
            f"it must be one of {', '.join(choices)}, but is {str(value)!r}."
            f"{did_you_mean(str(value), choices)}",
        )


class _HelpAll(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        assert isinstance(parser, CommandParser)
        parser.show_all()
        parser.exit()


def _unknown(
    words: Sequence[str], flags: Sequence[str], others: Mapping[str, CommandParser]
) -> str:
    """What is wrong with words that are neither options nor values of any."""
    first = next((word for word in words if word.startswith("-")), None)
    if first is None:
        return f"there is nothing to do with {' '.join(words)!r}"
    name = first.partition("=")[0]
    have = [command for command, parser in others.items() if name in parser.flags]
    if have:
        return f"there is no option {name} ({', '.join(have)} {_HAVE[len(have) > 1]} it)"
    advice = _ELSEWHERE.get(name)
    if advice is not None and set(re.findall(r"--[a-z-]+", advice)) <= set(flags):
        return f"there is no option {name}: {advice}"
    # Without the hyphens, which all have in common.
    meant = nearest(name.lstrip("-"), [flag.removeprefix("--") for flag in flags if "--" in flag])
    question = "" if meant is None else f". Did you mean '--{meant}'?"
    return f"there is no option {name}{question}"
