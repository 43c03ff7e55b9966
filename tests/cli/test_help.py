"""The examples that end each command's help: the command takes them as they stand."""

from __future__ import annotations

from pathlib import Path
import re
import shlex

import pytest

from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.parser import command_parser
from optuna_quant.visualization.plots import PLOTS


ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "command_line.md"
COMMANDS = command_parser().commands


def examples(parser: CommandParser) -> list[str]:
    """The examples in a command's help."""
    _, heading, shown = parser.format_help().partition("\nexamples:\n")
    assert heading
    return [line.strip() for line in shown.splitlines() if line.startswith("  optuna-quant ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_of_the_command_that_it_takes(command: str) -> None:
    found = examples(COMMANDS[command])
    assert found
    assert found[0].split()[1] == command
    for line in found:
        assert len(line) < 94  # With the indent it fits where help is 96 columns wide.
        taken = command_parser().parse_args(shlex.split(line)[1:])
        if taken.command == "plot" and taken.kind is not None:
            assert taken.kind in PLOTS


def test_all_options_end_with_the_same_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_parser().parse_args(["tune", "--help-all"])
    _, heading, shown = capsys.readouterr().out.partition("\nexamples:\n")
    assert heading
    assert shown == COMMANDS["tune"].format_help().partition("\nexamples:\n")[2]


def test_the_page_of_the_command_has_code_for_each() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
    sections["Init"] = PAGE.read_text().partition("\n## A configuration file\n")[2]
    for command in COMMANDS:
        code = "\n".join(
            re.findall(r"^```bash\n(.*?)^```$", sections[command.capitalize()], re.M | re.S)
        )
        assert f"optuna-quant {command}" in code, command


@pytest.mark.parametrize("command", ["serve", "dashboard"])
def test_code_on_the_page_that_is_not_run_is_taken(command: str) -> None:
    lines = re.findall(rf"^optuna-quant {command} --.*$", PAGE.read_text(), re.M)
    assert len(lines) > 1
    for line in lines:
        command_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/quickstart.md"])
def test_commands_of_the_first_pages_are_taken(page: str) -> None:
    blocks = re.findall(
        r"^```(?:bash|console)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S
    )
    lines = "\n".join(blocks).replace("\\\n", " ").replace("2>&1", "").splitlines()
    commands = [line for line in lines if line.startswith("optuna-quant ") and "..." not in line]
    assert commands
    for line in commands:
        command_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize(
    ("command", "written"), [("tune", "OUT.onnx"), ("sensitivity", "OUT.json")]
)
def test_help_says_what_kind_of_file_is_written(command: str, written: str) -> None:
    help_text = COMMANDS[command].format_help()
    # From Python 3.13 on, the two forms of an option share the name of their value.
    assert re.search(rf"--output( {written})?, -o {re.escape(written)}\n", help_text)
