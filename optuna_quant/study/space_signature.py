"""Store the tuning space in a study, and refuse another one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant import _optuna
from optuna_quant._common.version import __version__
from optuna_quant.study import record
from optuna_quant.study.blobs import read_text
from optuna_quant.study.blobs import write_text


if TYPE_CHECKING:
    import optuna

    from optuna_quant._common.json_value import Json
    from optuna_quant.space.space import TuningSpace


PROTOCOL = 2
"""Changed whenever workers of the old and the new kind would misunderstand each other."""

_PROTOCOL_ATTR = "optuna_quant:protocol"
_MOST_DIFFERENCES = 5


def check_space(study: optuna.Study, space: TuningSpace) -> None:
    """Keep the space in the study, or compare it with the one that is kept there.

    Raises:
        ValueError:
            If they differ; the message says in what.
    """
    if check_protocol(study):
        mark: Json = {"protocol": PROTOCOL, "version": __version__}
        _optuna.set_study_system_attr(study, _PROTOCOL_ATTR, mark)
    described = space.describe()
    text = space.description
    name = f"{record.SPACE}:{space.prefix}"
    stored = read_text(study, name)
    if stored is None:
        types = {op: tunable.op_type for tunable in space.tunables for op in tunable.ops}
        # In the order of the model, which the space's own text does not have.
        write_text(study, f"{record.OP_TYPES}:{space.prefix}", json.dumps(types))
        write_text(study, name, text)
    elif stored != text:
        raise ValueError(
            f"The study {study.study_name!r} was started with another tuning space: "
            f"{differences(json.loads(stored), described)}. Use the same model and options, or "
            "another study name."
        )


def check_protocol(study: optuna.Study) -> bool:
    """Refuse a study whose record has another format; return whether it does not say.

    Raises:
        ValueError:
            If another version of this package has started it, which keeps it in another way.
    """
    stored = _optuna.study_system_attrs(study).get(_PROTOCOL_ATTR)
    if stored is not None and stored["protocol"] != PROTOCOL:
        raise ValueError(
            f"The study {study.study_name!r} was started with optuna_quant {stored['version']}, "
            f"whose record has another format than that of this version, {__version__}. Use the "
            "same version for all workers of a study, or another study name."
        )
    return stored is None


def differences(stored: dict[str, list[Any]], given: dict[str, list[Any]]) -> str:
    """What differs between the descriptions of two spaces, in words."""
    found = []
    for name in sorted({*stored, *given}):
        kind, _, what = name.partition(":")
        label = f"{kind} {what!r}" if what else kind
        if name not in given:
            found.append(f"{label} is in the study but not in the given space")
        elif name not in stored:
            found.append(f"{label} is in the given space but not in the study")
        elif _texts(stored[name]) != _texts(given[name]):
            found.append(f"{label} {_difference(stored[name], given[name])}")
    rest = len(found) - _MOST_DIFFERENCES
    if rest > 0:
        found[_MOST_DIFFERENCES:] = [f"and {rest} more"]
    return "; ".join(found)


def first_difference(one: TuningSpace, other: TuningSpace) -> str | None:
    """In what a space is not like another one, in a few words; :obj:`None` if they are equal.

    Args:
        one:
            The space that is spoken of.
        other:
            What it is compared with.
    """
    if one.prefix != other.prefix:
        return f"its parameters begin with {one.prefix!r}, not {other.prefix!r}"
    here, there = one.describe(), other.describe()
    found = [
        name
        for name in {**here, **there}
        if name not in here or name not in there or _texts(here[name]) != _texts(there[name])
    ]
    if not found:
        return None
    kind, _, what = found[0].partition(":")
    label = f"{kind} {what!r}" if what else kind
    if found[0] in here and found[0] in there:
        said = f"{label} has other options ({len(here[found[0]])}, not {len(there[found[0]])})"
        if sorted(_texts(here[found[0]])) == sorted(_texts(there[found[0]])):
            said = f"{label} has its options in another order"
    else:
        said = f"it has {'no ' if found[0] not in here else ''}{label}"
    rest = len(found) - 1
    more = "" if not rest else f", and {rest} more difference{'s' if rest > 1 else ''}"
    return f"{said}{more}"


def _difference(stored: list[Any], given: list[Any]) -> str:
    lost = [text for text in _texts(stored) if text not in _texts(given)]
    new = [text for text in _texts(given) if text not in _texts(stored)]
    parts = [f"no longer has {_some(lost)}"] if lost else []
    parts += [f"now has {_some(new)}"] if new else []
    return " and ".join(parts) or "has its options in another order"


def _texts(values: list[Any]) -> list[str]:
    # As text, because Python takes True and 1 for equal.
    return [repr(value) for value in values]


def _some(items: list[str]) -> str:
    rest = len(items) - _MOST_DIFFERENCES
    shown = ", ".join(items[:_MOST_DIFFERENCES])
    return f"{shown} and {rest} more" if rest > 0 else shown
