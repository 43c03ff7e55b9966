"""The cost table of a search: the given one, or the number of ops in fallback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.costs import CostTable
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


def fallback_table(space: TuningSpace) -> CostTable:
    """A table that counts the ops in fallback."""
    ops = {
        # What the floats cost is asked of ops that have no fallback as well.
        op: {FP32.label: 1.0}
        | {option.label: 0.0 if option.is_quantized else 1.0 for option in tunable.options}
        for tunable in space.tunables
        for op in tunable.ops
    }
    return CostTable("ops", "", ops)


def costs_of_search(space: TuningSpace, given: CostTable | None) -> CostTable:
    """The table that is given, checked; without one a table that counts the ops in fallback.

    Raises:
        TypeError:
            If what is given is no table.
        ValueError:
            If the table lacks an option of the space.
    """
    if given is None:
        return fallback_table(space)
    if not isinstance(given, CostTable):
        raise TypeError(
            f"costs must be a CostTable, such as backend.costs(space).table('latency'), but "
            f"got {given!r}."
        )
    for tunable in space.tunables:
        for op in tunable.ops:
            for option in tunable.options:
                given.option_cost(op, option.label)
    return given
