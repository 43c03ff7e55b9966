"""A target as users give it: a name, a profile, or a file with one."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import os
from pathlib import Path
import tomllib
from typing import Any
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.backends.onnxruntime.targets.profile import IntegerForm
from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
from optuna_quant.backends.onnxruntime.targets.table import CPU
from optuna_quant.backends.onnxruntime.targets.table import TARGETS


TargetLike: TypeAlias = "str | os.PathLike[str] | TargetProfile"
"""A name of :data:`TARGETS`, the path of a ``.json`` or ``.toml`` file, or a profile."""

_BASE = "base"


def as_target(given: TargetLike | None) -> TargetProfile:
    """The profile that is meant.

    Args:
        given:
            A profile; the name of one of :data:`TARGETS`; or the path of a JSON or TOML file with
            the fields of a :class:`TargetProfile`, ``forms`` as a list of tables with those of an
            :class:`IntegerForm`. With ``base``, the name of a known target, a file needs only the
            fields that differ from it. :obj:`None` for the CPU.

    Raises:
        FileNotFoundError:
            If there is no such file.
        TypeError:
            If it is none of these.
        ValueError:
            If there is no target of this name, or the file does not hold a profile.
    """
    if given is None:
        return CPU
    if isinstance(given, TargetProfile):
        return given
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(
            "target must be a name, a TargetProfile, or the path of a JSON or TOML file, but got "
            f"{given!r}."
        )
    if isinstance(given, str) and given in TARGETS:
        return TARGETS[given]
    path = Path(given)
    if path.suffix.lower() not in (".json", ".toml"):
        raise ValueError(
            f"There is no target {os.fspath(given)!r}; there are {', '.join(TARGETS)}, and the "
            "path of a .json or .toml file with a profile of your own."
            f"{did_you_mean(str(given), list(TARGETS))}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {os.fspath(given)!r} with a target profile.")
    try:
        return profile_from(_read(path))
    except ValueError as error:
        raise ValueError(f"The target profile {os.fspath(given)!r}: {error}") from error


def profile_from(fields: Mapping[str, Any]) -> TargetProfile:
    """A profile from plain values.

    Args:
        fields:
            As a file has them, see :func:`as_target`.

    Raises:
        ValueError:
            If a field is missing, unknown, or has an invalid value.
    """
    values = dict(fields)
    base = values.pop(_BASE, None)
    if base is not None and base not in TARGETS:
        raise ValueError(f"base must be one of {', '.join(TARGETS)}, but got {base!r}.")
    _check_names(values, TargetProfile, more=(_BASE,), all_needed=base is None)
    if "forms" in values:
        values["forms"] = _forms(values["forms"])
    if base is None:
        return TargetProfile(**values)
    return dataclasses.replace(TARGETS[base], **{"note": "", **values})


def _read(path: Path) -> Mapping[str, Any]:
    text = path.read_text(encoding="utf-8")
    found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"it must hold a table, but holds {found!r}.")
    return found


def _forms(given: Any) -> tuple[IntegerForm, ...]:
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError(f"forms must be a list of tables, but got {given!r}.")
    found = []
    for each in given:
        _check_names(each, IntegerForm, all_needed=True)
        found.append(IntegerForm(**each))
    return tuple(found)


def _check_names(
    values: Mapping[str, Any], cls: type, *, more: tuple[str, ...] = (), all_needed: bool
) -> None:
    fields = dataclasses.fields(cls)
    known = [*more, *(field.name for field in fields)]
    for name in values:
        if name not in known:
            raise ValueError(
                f"it has an unknown field {name!r}; known are {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
    for field in fields:
        if all_needed and field.default is dataclasses.MISSING and field.name not in values:
            raise ValueError(f"it lacks {field.name!r}.")
