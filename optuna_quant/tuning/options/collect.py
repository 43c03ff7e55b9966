"""Collect options that were given one by one or in groups."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any
from typing import TypeVar

from optuna_quant._common.option import groups_of
from optuna_quant._common.option import meant_by
from optuna_quant._common.option import options_of


T = TypeVar("T")

# Names that the same has in neural-compressor and elsewhere.
_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "calib_dataloader": "calibration_data",
        "calib_data": "calibration_data",
        "eval_dataloader": "data",
        "eval_data": "data",
        "eval_fn": "evaluate",
        "eval_func": "evaluate",
        "eval_metric": "metric",
    }
)


def collect(cls: type[T], given: Mapping[str, Any]) -> T:
    """The value of a class from options, each by its own name or in the value of its group.

    Args:
        cls:
            What is made, such as :class:`~optuna_quant.tuning.options.request.TuneOptions`.
        given:
            The options by name, and values of groups by theirs.

    Raises:
        TypeError:
            If there is no such option, a group is given by something else than its class, or an
            option has another type.
        ValueError:
            If an option and the group that it belongs to are both given, or an option is out of
            its range.
    """
    options, groups = options_of(cls), groups_of(cls)
    for name in given:
        if name not in options and name not in groups:
            raise TypeError(_unknown(name, cls))
    values = {name: given[name] for name in groups if given.get(name) is not None}
    for name, value in values.items():
        if not isinstance(value, groups[name]):
            raise TypeError(
                f"{name} must be of the type {groups[name].__name__}, but got {value!r}."
                f"{_loss_meant(name, value)}"
            )
    single: dict[str, dict[str, Any]] = {}
    for name in (name for name in given if name in options):
        group = options[name].group
        if group is None:
            values[name] = given[name]
            continue
        if group in values:
            raise ValueError(_twice(name, given[name], group, groups[group]))
        single.setdefault(group, {})[name] = given[name]
    made = {name: groups[name](**chosen) for name, chosen in single.items()}
    return cls(**values, **made)


def _loss_meant(name: str, value: object) -> str:
    """How to write a criterion of which the tolerable loss alone was given."""
    if name != "accuracy_criterion" or isinstance(value, bool) or not isinstance(value, Real):
        return ""
    return f" For a tolerable loss write AccuracyCriterion(tolerable_loss={value!r})."


def _twice(name: str, value: object, group: str, kind: type) -> str:
    """What is to be said of an option that is given by its name and in a value."""
    held = kind.__name__
    return (
        f"{name}={value!r} and {group}={held}(...) are both given, and {name} is an option of "
        f"{held}: write {group}={held}(..., {name}={value!r}), or leave {group} out and give "
        "its options one by one."
    )


def _unknown(name: str, cls: type) -> str:
    """What is to be said of an option that does not exist."""
    options, groups = options_of(cls), groups_of(cls)
    told = f"tune() has no option {name!r}."
    elsewhere = _ELSEWHERE.get(name)
    meant = elsewhere if elsewhere in options else meant_by(name, cls)
    if meant is None:
        flat = ", ".join(found.name for found in options.values() if found.group is None)
        held = ", ".join(f"{group} ({kind.__name__})" for group, kind in groups.items())
        return f"{told} It has {flat}; and the options of {held}."
    group = options[meant].group if meant in options else None
    where = "" if group is None else f" (It is an option of {groups[group].__name__}.)"
    return f"{told} Did you mean {meant!r}?{where}"
