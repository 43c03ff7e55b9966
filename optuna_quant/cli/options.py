"""The flags of the command, made from the options as they were declared."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace
import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.option import options_of
from optuna_quant.cli.config_file import read_config
from optuna_quant.cli.config_file import read_named_files
from optuna_quant.cli.plugins import with_plugins


if TYPE_CHECKING:
    from optuna_quant._common.option import Flag
    from optuna_quant._common.option import Option
    from optuna_quant._common.option_kinds import Kind
    from optuna_quant._common.option_kinds import Plain


_STORAGE_VARIABLE = "OPTUNA_STORAGE"
"""The environment variable that Optuna's own command reads."""

SPACE_OPTIONS = (
    "approach",
    "target",
    "op_types",
    "op_type_dict",
    "op_name_dict",
    "recipes",
    "calibration_data",
    "inputs",
    "threads",
    "costs",
)
"""What says how a tuning space is made, and what its ops cost."""

HEADINGS = (
    "what is quantized",
    "data and evaluation",
    "criterion",
    "search",
    "output and record",
)


def add_options(parser: argparse.ArgumentParser, cls: type) -> dict[str, argparse._ArgumentGroup]:
    """Add a flag for each option of a class that the command can say.

    Args:
        parser:
            The parser. What it reads has the given options alone, under their names.
        cls:
            The class that declares them.

    Returns:
        The groups of flags by heading, to be added to.
    """
    groups = {heading: parser.add_argument_group(heading) for heading in HEADINGS}
    for option in options_of(cls).values():
        if option.flag is None:
            continue
        if option.flag.heading not in groups:
            groups[option.flag.heading] = parser.add_argument_group(option.flag.heading)
        _add(groups[option.flag.heading], option, option.flag, option.flag.help)
    return groups


def add_some(
    parser: argparse.ArgumentParser,
    cls: type,
    names: Iterable[str],
    helps: Mapping[str, str] = MappingProxyType({}),
    metavars: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add the flags of some options.

    Args:
        parser:
            The parser.
        cls:
            The class that declares them.
        names:
            Which options.
        helps:
            What ``--help`` says of them here, where that is something else.
        metavars:
            What it calls their values here, where that is something else.
    """
    options = options_of(cls)
    for name in names:
        option = options[name]
        assert option.flag is not None
        flag = replace(option.flag, metavar=metavars.get(name, option.flag.metavar))
        _add(parser, option, flag, helps.get(name, flag.help))


def _add(to: argparse._ActionsContainer, option: Option, flag: Flag, help: str) -> None:
    given: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": help}
    if flag.value is not None:
        to.add_argument(*option.flags, action="store_const", const=flag.value, **given)
        if flag.opposite:
            given["help"] = f"the opposite of {option.flags[0]}"
            to.add_argument(flag.opposite, action="store_const", const=not flag.value, **given)
        return
    if flag.metavar is not None:
        given["metavar"] = flag.metavar
    if flag.choices:
        given["choices"] = [flag.kind.read(text) for text in flag.choices]
    if flag.kind.repeats:
        given["action"] = "append"
    if flag.kind.parts is not None:
        given["nargs"] = flag.kind.parts
    to.add_argument(*option.flags, type=_reader(flag.kind), **given)


def _reader(kind: Kind) -> Callable[[str], Plain]:
    def read(text: str) -> Plain:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def rare_options(cls: type) -> list[str]:
    """The names of the options of a class that only ``--help-all`` shows."""
    options = options_of(cls).values()
    return [each.name for each in options if each.flag is not None and not each.flag.common]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a configuration file.

    Args:
        parser:
            The parser.
    """
    parser.add_argument(
        "--config",
        metavar="FILE.toml",
        help="options from a file, under their Python names, such as batch_size = 32; paths in "
        "it are relative to the file, and flags override it. One file serves all commands: each "
        "takes the options that it has ('optuna-quant init' writes one)",
    )


def add_model(parser: argparse.ArgumentParser, told: str) -> None:
    """Add the argument that names the model, which a configuration file can name instead.

    Args:
        parser:
            The parser.
        told:
            Its help.
    """
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"{told} (default: model in --config)"
    )


def model_given(args: argparse.Namespace) -> str | None:
    """The model as the command names it, or else its configuration file.

    Args:
        args:
            The arguments.

    Raises:
        ValueError:
            If the file cannot be read.
    """
    if args.model is None and args.config is not None:
        return read_named_files(args.config).model
    found: str | None = args.model
    return found


def required_model(args: argparse.Namespace) -> Path:
    """The file of the model, which must be there.

    Args:
        args:
            The arguments.

    Raises:
        ValueError:
            If there is no such file, or neither the command nor its configuration file names one.
    """
    from optuna_quant.cli.loading import existing_file

    name = model_given(args)
    if name is None:
        where = "" if args.config is None else f" or as model = ... in {args.config}"
        raise ValueError(
            f"The model is missing: name it behind the command{where}, as in "
            f"'optuna-quant {args.command} model.onnx'."
        )
    return existing_file("the model", name)


def storage_given(given: Mapping[str, Plain]) -> str | None:
    """The address of the storage: as given, or else as the environment says it for Optuna.

    Args:
        given:
            The options.
    """
    found = given.get("storage") or os.environ.get(_STORAGE_VARIABLE)
    return None if found is None else str(found)


def given_options(
    args: argparse.Namespace, cls: type, only: Container[str] | None = None
) -> dict[str, Plain]:
    """The options that a command was given: by flags, and else by a configuration file.

    Plugins are loaded: the name of a metric of theirs is one from then on.

    Args:
        args:
            The arguments; ``config`` is the path of the file, if there is one.
        cls:
            The class that declares the options.
        only:
            The options that the command has; a file may say others, which are for other commands.
            Default: all.

    Raises:
        ValueError:
            If the file cannot be read, or sets something that is not an option.
    """
    path = getattr(args, "config", None)
    found = {} if path is None else read_config(path, cls)
    said = {option.name for option in options_of(cls).values() if option.flag is not None}
    flags = {name: value for name, value in vars(args).items() if name in said}
    if only is not None:
        found = {name: value for name, value in found.items() if name in only}
    return with_plugins(args, {**found, **flags})
