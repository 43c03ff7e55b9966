"""The cost table of a search: the given one, or the number of ops in fallback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.costs import CostTable
from optuna_quant.costs.known import fallback_table


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


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
