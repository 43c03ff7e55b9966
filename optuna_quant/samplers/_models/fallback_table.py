"""The costs of a search that is given none: how many ops are in fallback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.costs import CostTable


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


def fallback_table(space: TuningSpace) -> CostTable:
    """A table that counts the ops in fallback."""
    ops = {
        op: {option.label: 0.0 if option.is_quantized else 1.0 for option in tunable.options}
        for tunable in space.tunables
        for op in tunable.ops
    }
    return CostTable("ops", "", ops)
