"""Write down how a search was started, so that it can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import PurePath
import shlex
from typing import Any

from optuna_quant.storages.address import shown_address


_ADDRESS = "storage"
_SHORT = 200


@dataclass(frozen=True)
class Call:
    """What has started a search.

    Args:
        language:
            ``"python"`` or ``"shell"``.
        text:
            The code. Secrets are hidden.
        seed:
            The seed of everything random.
    """

    language: str
    text: str
    seed: int


def shell_command(words: Sequence[str]) -> str:
    """A command as it is typed in a shell; secrets in addresses are hidden.

    Args:
        words:
            The command and its arguments.
    """
    return shlex.join(shown_address(word) if "://" in word else word for word in words)


def python_call(given: Mapping[str, Any]) -> str:
    """The call of :func:`optuna_quant.tune` with some arguments, as code.

    Args:
        given:
            The arguments by name. Those that no short code can write stand as ``...``, with a
            comment that says what was given. Addresses are shown without their secrets.
    """
    lines = ["optuna_quant.tune("]
    for name, value in given.items():
        code, comment = _written(name, value)
        lines.append(f"    {name}={code},{f'  # {comment}' if comment else ''}")
    return "\n".join([*lines, ")"])


def _written(name: str, value: Any) -> tuple[str, str]:
    """The code of a value, or dots and a comment."""
    if isinstance(value, os.PathLike):
        value = str(PurePath(value))
    if name == _ADDRESS and isinstance(value, str):
        value = shown_address(value)
    if _is_plain(value):
        code = repr(value)
        if len(code) <= _SHORT:
            return code, ""
    kind = getattr(value, "__qualname__", None) or type(value).__qualname__
    shape = getattr(value, "shape", None)
    return "...", f"{kind}{f' of the shape {tuple(shape)}' if shape is not None else ''}"


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, str | bool | int | float):
        return True
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return False
