"""Functions and files that the command line names."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.evaluation.metrics.objects import is_metric_object
from optuna_quant.evaluation.user_code import shown


def load(option: str, spec: str, default: str, kinds: tuple[type, ...]) -> object:
    """A function, or an object of one of these kinds, from a file."""
    path, function = function_file(spec, option, default)
    module = load_module(option, path)
    found = getattr(module, function, None)
    is_metric = bool(kinds) and is_metric_object(found)
    if not callable(found) and not isinstance(found, kinds) and not is_metric:
        have = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        raise ValueError(
            f"{option}: {str(path)!r} has no function {function!r}.{did_you_mean(function, have)} "
            f"It has: {', '.join(have) or 'none'}."
        )
    return found


def load_module(option: str, path: Path) -> ModuleType:
    """A file as a module; what is beside it can be imported by it.

    Args:
        option:
            The option that names it, for messages.
        path:
            The file.

    Raises:
        ValueError:
            If there is no such file, or it cannot be run.
    """
    existing_file(option, str(path))
    description = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if description is None or description.loader is None:
        raise ValueError(f"{option}: {str(path)!r} is not a Python file.")
    module = importlib.util.module_from_spec(description)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # So that it can import what is beside it.
    sys.modules.setdefault(path.stem, module)
    try:
        description.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # A file that calls sys.exit does not end the command.
        raise ValueError(f"{option}: {str(path)!r} cannot be run: {shown(error)}") from error
    return module


def function_file(
    spec: str, option: str = "--evaluate", default: str = "evaluate"
) -> tuple[Path, str]:
    """The file and the name in ``FILE.py:FUNC``."""
    name, colon, function = spec.rpartition(":")
    if not colon or not function.isidentifier():
        name, function = spec, default
    return existing_file(option, name), function


def read_json(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if text.startswith("@"):
        text = existing_file(option, text[1:]).read_text()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{option} must be a JSON object, but got {text!r}.")
    return value


def data_path(option: str, name: str) -> Path:
    """A file or a folder of labelled data."""
    path = Path(name)
    return path if path.is_dir() else existing_file(option, name)


def existing_file(what: str, name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{what[0].upper()}{what[1:]}: {name!r} is a folder; give a file.")
    if not path.is_file():
        raise ValueError(f"{what[0].upper()}{what[1:]}: there is no file {name!r}.")
    return path
