"""Options from a file of TOML, by the names that they have in Python."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
import tomllib
from typing import TYPE_CHECKING

from optuna_quant._common.option import groups_of
from optuna_quant._common.option import meant_by
from optuna_quant._common.option import options_of


if TYPE_CHECKING:
    from optuna_quant._common.option import Option
    from optuna_quant._common.option_kinds import Plain


MODEL, PLUGIN = "model", "plugin"


@dataclass(frozen=True, kw_only=True)
class NamedFiles:
    """The files that a configuration file names besides its options.

    Args:
        model:
            The path of the model; :obj:`None` if it names none.
        plugins:
            The paths of the plugins.
    """

    model: str | None = None
    plugins: tuple[str, ...] = ()


def read_named_files(path: str | os.PathLike[str]) -> NamedFiles:
    """The model and the plugins that a file names; their paths are relative to the file.

    Args:
        path:
            The file.

    Raises:
        ValueError:
            If the file cannot be read, or one of them is not a path.
    """
    file = Path(path)
    said = _load(file)
    model, plugins = said.get(MODEL), said.get(PLUGIN, [])
    models = _paths([] if model is None else [model], MODEL, file)
    if isinstance(plugins, str):
        plugins = [plugins]
    return NamedFiles(
        model=models[0] if models else None, plugins=tuple(_paths(plugins, PLUGIN, file))
    )


def _paths(said: Plain, name: str, file: Path) -> list[str]:
    found = [each for each in said if isinstance(each, str)] if isinstance(said, list) else []
    if not isinstance(said, list) or len(found) < len(said) or "" in found:
        what = "a path" if name == MODEL else "a path or a list of paths"
        shown = said[0] if name == MODEL and isinstance(said, list) else said
        raise ValueError(f"--config {file}: {name} must be {what}, but is {shown!r}.")
    return [str(file.parent / each) for each in found]


def read_config(path: str | os.PathLike[str], cls: type) -> dict[str, Plain]:
    """The options that a file says, but for those of :func:`read_named_files`.

    An option stands in the file by its name, or in a table named like the argument of
    :func:`~optuna_quant.tune` that takes it, as ``[evaluation]``. Paths are relative to the file.

    Args:
        path:
            The file.
        cls:
            The class that declares the options.

    Raises:
        ValueError:
            If the file cannot be read, or something in it is not an option or not a value of it.
    """
    file = Path(path)
    said = {name: value for name, value in _load(file).items() if name not in (MODEL, PLUGIN)}
    found: dict[str, Plain] = {}
    for option, value in _options(said, cls, f"--config {file}"):
        if option.name in found:
            raise ValueError(f"--config {file}: {option.name} is given twice.")
        found[option.name] = _read(option, value, file)
    return found


def _load(file: Path) -> dict[str, Plain]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not a text file" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ValueError(f"--config: {str(file)!r} cannot be read: {why}.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--config: {str(file)!r} is not valid TOML: {error}.") from None


def _options(said: Mapping[str, Plain], cls: type, where: str) -> Iterator[tuple[Option, Plain]]:
    options, groups = options_of(cls), groups_of(cls)
    for name, value in said.items():
        if name not in groups:
            yield _known(name, options, cls, where), value
        elif not isinstance(value, dict):
            raise ValueError(f"{where}: {name} must be a table, but is {value!r}.")
        else:
            own = {key: option for key, option in options.items() if option.group == name}
            for key, each in value.items():
                yield _known(key, own, cls, f"{where}, [{name}]"), each


def _known(name: str, options: Mapping[str, Option], cls: type, where: str) -> Option:
    """The option of a name that can stand in a file."""
    found = options.get(name)
    if found is None:
        meant = meant_by(name, cls)
        told = "" if meant is None else f" Did you mean {meant!r}?"
        if meant == name:
            told = " It is an option, but not of this table."
        raise ValueError(f"{where}: there is no option {name!r}.{told}")
    if found.flag is None:
        raise ValueError(f"{where}: {name} cannot be set in a file, only in Python.")
    return found


def _read(option: Option, value: Plain, file: Path) -> Plain:
    assert option.flag is not None
    choices = [option.flag.kind.read(text) for text in option.flag.choices]
    try:
        found = option.flag.kind.from_file(value, str(file.parent))
        if choices and found not in choices:
            raise ValueError(f"it must be one of {', '.join(map(str, choices))}, but is {value!r}")
    except ValueError as error:
        raise ValueError(f"--config {file}: {option.name}: {error}.") from None
    return found
