"""The options that a phase of the search does not use, by op."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import TypeAlias


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


Forbidden: TypeAlias = Mapping[str, Sequence[str]]
"""The labels of the options that are not used, by op."""


def options_of_others(space: TuningSpace, ops: Collection[str]) -> Forbidden:
    """The quantized options of all ops outside a set, if these have others."""
    if not ops:
        return {}
    return {
        op: [option.label for option in tunable.quantized]
        for tunable in space.tunables
        if tunable.fallbacks and tunable.quantized and not set(tunable.ops) & set(ops)
        for op in tunable.ops
    }


def merged_options(one: Forbidden, other: Forbidden) -> Forbidden:
    """The union of two sets of forbidden options."""
    return {op: [*one.get(op, ()), *other.get(op, ())] for op in {**one, **other}}
