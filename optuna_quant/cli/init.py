"""The command ``optuna-quant init``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
import json
import os
from pathlib import Path
import re
import textwrap
from typing import TYPE_CHECKING

from optuna_quant._common.option import Option
from optuna_quant._common.option import options_of
from optuna_quant.cli import exit_codes
from optuna_quant.cli.argument_parser import CommandParser
from optuna_quant.cli.config_file import MODEL
from optuna_quant.cli.config_file import PLUGIN
from optuna_quant.cli.options import HEADINGS
from optuna_quant.tuning.options.request import TuneOptions


if TYPE_CHECKING:
    from optuna_quant.backends.default import DefaultBackend


_WIDTH = 96
_FLAG = re.compile(r"--[a-z-]+[a-z]")


def add_init(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "init",
        help="write a configuration file to edit",
        description="Write a configuration file for a model, in which every option stands with "
        "what it means: take away the '#' before those that you want to set.",
    )
    parser.add_argument("model", metavar="MODEL", help="the ONNX model; it is not changed")
    parser.add_argument(
        "--config", metavar="FILE.toml", default="tune.toml", help="the file (default: tune.toml)"
    )
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")
    parser.end_with_examples(
        "optuna-quant init model.onnx --config tune.toml",
        "optuna-quant tune --config tune.toml",
    )


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from optuna_quant.backends.default import make_backend
    from optuna_quant.cli.loading import existing_file

    model, file = existing_file("the model", args.model), Path(args.config)
    if file.exists():
        raise ValueError(f"--config: {args.config!r} is there already; give another name.")
    backend = make_backend(model, inspect_only=True)
    lines = [*_about(file, backend), *_files(model, file), *options_text()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {file}\nedit it, then: optuna-quant tune --config {file}")
    return exit_codes.MET


def _about(file: Path, backend: DefaultBackend) -> Iterator[str]:
    """What the model is, as far as it helps to fill in the rest."""
    yield f"# optuna-quant tune --config {file}"
    yield "#"
    yield "# Paths are relative to this file. Flags of the command override what stands here."
    for spec in backend.quantize(backend.tuning_space().fp32()).inputs:
        shape = "x".join(str(size) for size in spec.shape or ())
        yield f"# The model has the input {json.dumps(spec.name)}: {spec.dtype}, {shape}."
    types = Counter(t.op_type for t in backend.tuning_space().tunables for _ in t.ops)
    shown = ", ".join(f"{count} {name}" for name, count in types.most_common())
    yield f"# Ops that can be quantized: {shown}."


def _files(model: Path, file: Path) -> Iterator[str]:
    """The model, and a plugin as a comment."""
    yield ""
    yield "# Another model behind the command goes before it."
    yield f"{MODEL} = {json.dumps(os.path.relpath(model, file.parent), ensure_ascii=False)}"
    yield ""
    yield "# Files with strategies (@register_strategy) and metrics of your own, as --plugin."
    yield f'#{PLUGIN} = ["my_strategies.py"]'


def options_text() -> list[str]:
    """All options that a file can say, each as a comment, under their headings."""
    groups: dict[str, list[Option]] = {heading: [] for heading in HEADINGS}
    for option in options_of(TuneOptions).values():
        if option.flag is not None:
            groups.setdefault(option.flag.heading, []).append(option)
    lines: list[str] = []
    for heading, options in groups.items():
        lines += ["", f"# {heading.upper()}"]
        for option in sorted(options, key=lambda o: o.flag is None or not o.flag.common):
            lines += _commented(option)
    return lines


def _commented(option: Option) -> list[str]:
    assert option.flag is not None
    told = textwrap.wrap(
        _with_names(option.flag.help), _WIDTH, initial_indent="# ", subsequent_indent="# "
    )
    return ["", *told, f"#{option.name} = {_example(option)}"]


def _with_names(text: str) -> str:
    """A help text in which other options have their names in the file."""
    names = {flag: each.name for each in options_of(TuneOptions).values() for flag in each.flags}
    return _FLAG.sub(lambda found: names.get(found[0], found[0]), text)


def _example(option: Option) -> str:
    """A value in TOML: the default, or one that shows the form."""
    flag, default = option.flag, option.default
    assert flag is not None
    if isinstance(default, bool):
        return json.dumps(not default)  # A switch is set for the other value.
    if isinstance(default, int | float | str):
        return json.dumps(default)
    if flag.value is not None:
        return json.dumps(flag.value)
    if flag.kind.example is not None:
        return flag.kind.example
    return json.dumps(flag.choices[0] if flag.choices else str(flag.metavar or "..."))
