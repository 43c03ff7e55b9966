"""The cost table of a search without costs: the number of ops in fallback."""

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
