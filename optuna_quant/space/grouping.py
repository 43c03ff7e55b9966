"""Tying ops together, so that they share one parameter."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
import re

from optuna_quant.space.tunable import Tunable


def tie_groups(
    tunables: Sequence[Tunable], groups: Mapping[str, Sequence[str]]
) -> tuple[Tunable, ...]:
    """The tunables with those of each group made one.

    Args:
        tunables:
            The tunables.
        groups:
            Names of tunables, or regular expressions that match whole names, by the name of the
            group.

    Returns:
        The tunables; a group stands where its first one stood.

    Raises:
        ValueError:
            If a group is not possible.
    """
    names = {op: each.name for each in tunables for op in (each.name, *each.ops)}
    member: dict[str, str] = {}
    for group, patterns in groups.items():
        if not patterns:
            raise ValueError(f"Group {group!r} has no op.")
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            for name in _named(pattern, names):
                if member.setdefault(name, group) != group:
                    raise ValueError(
                        f"Op {name!r} is in two groups: {member[name]!r} and {group!r}."
                    )
    merged: dict[str, list[Tunable]] = {}
    for tunable in tunables:
        if tunable.name in groups and tunable.name not in member:
            raise ValueError(f"Group {tunable.name!r} is named like an op that is not in it.")
        merged.setdefault(member.get(tunable.name, tunable.name), []).append(tunable)
    return tuple(
        _tie(name, parts) if name in groups else parts[0] for name, parts in merged.items()
    )


def tie_shared_weights(
    tunables: Sequence[Tunable], weights: Mapping[str, str]
) -> tuple[Tunable, ...]:
    """The tunables with those made one that share a weight, so that it is kept in one form.

    Args:
        tunables:
            The tunables, of one op each.
        weights:
            The weight of each op by the op's name; empty if it has none.

    Returns:
        The tunables; ops are tied that have one type, one weight and the same options, and stand
        where the first of them stood.
    """
    alike: dict[Hashable, list[Tunable]] = {}
    for tunable in tunables:
        weight = weights[tunable.name]
        same = (weight, tunable.op_type, tunable.options) if weight else tunable.name
        alike.setdefault(same, []).append(tunable)
    return tuple(
        _tie(f"{parts[0].name} and {len(parts) - 1} more", parts) if len(parts) > 1 else parts[0]
        for parts in alike.values()
    )


def _named(pattern: str, names: Mapping[str, str]) -> list[str]:
    """The tunables that are meant, by their names or those of their ops."""
    if pattern in names:
        return [names[pattern]]
    try:
        found = [name for op, name in names.items() if re.fullmatch(pattern, op)]
    except re.error as error:
        raise ValueError(
            f"No op of the tuning space is named {pattern!r}, and it is not a regular expression "
            f"({error})."
        ) from None
    if not found:
        raise ValueError(f"No op of the tuning space matches {pattern!r}.")
    return list(dict.fromkeys(found))


def _tie(name: str, parts: Sequence[Tunable]) -> Tunable:
    common = [o for o in parts[0].options if all(o in part.options for part in parts[1:])]
    if not common:
        raise ValueError(f"The ops of group {name!r} have no option in common.")
    op_type = "+".join(dict.fromkeys(part.op_type for part in parts))
    return Tunable(name, op_type, tuple(op for part in parts for op in part.ops), tuple(common))
