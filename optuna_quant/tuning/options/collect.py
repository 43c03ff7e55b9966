"""Options that were given one by one, or in values that hold several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.option import groups_of
from optuna_quant._common.option import options_of


if TYPE_CHECKING:
    from optuna_quant._common.option import Option


T = TypeVar("T")


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
            raise TypeError(_unknown(name, options, groups))
    for name, kind in groups.items():
        if not isinstance(given.get(name), kind | None):
            raise TypeError(
                f"{name} must be of the type {kind.__name__}, but got {given[name]!r}."
            )
    values = {name: value for name, value in given.items() if name in groups and value is not None}
    single: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        group = None if name in groups else options[name].group
        if name not in groups and group is None:
            values[name] = value
        elif group is not None:
            if group in values:
                held = groups[group].__name__
                raise ValueError(
                    f"{name}={value!r} and {group}={held}(...) are both given, and {name} is an "
                    f"option of {held}: write {group}={held}(..., {name}={value!r}), or leave "
                    f"{group} out and give its options one by one."
                )
            single.setdefault(group, {})[name] = value
    made = {name: groups[name](**chosen) for name, chosen in single.items()}
    return cls(**values, **made)


def _unknown(name: str, options: Mapping[str, Option], groups: Mapping[str, type]) -> str:
    """What is to be said of an option that does not exist."""
    told = f"tune() has no option {name!r}."
    meant = did_you_mean(name, [*options, *groups])
    if not meant:
        flat = ", ".join(found.name for found in options.values() if found.group is None)
        held = ", ".join(f"{group} ({kind.__name__})" for group, kind in groups.items())
        return f"{told} It has {flat}; and the options of {held}."
    found = options.get(meant.split("'")[1])
    if found is None or found.group is None:
        return f"{told}{meant}"
    where = groups[found.group].__name__
    return f"{told}{meant} (It is an option of {where}.)"
