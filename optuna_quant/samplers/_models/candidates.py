"""Candidates for evaluation: the trade-off of cost and predicted loss, and its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.tradeoff import tradeoff
from optuna_quant.samplers._models.forbidden_options import Forbidden
from optuna_quant.samplers._models.forbidden_options import merged_options
from optuna_quant.samplers._models.scored_options import scored_options
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.costs import CostTable
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# With more ops the trade-off is near enough, and an integer program takes long.
_MOST_POLISHED = 150
_WORTH_POLISHING = 1e-3
_GRID = 5000


class Candidates:
    """Finds the cheapest configurations, given a model's weights of the ops.

    Args:
        space:
            The tuning space.
        table:
            The costs.
    """

    def __init__(self, space: TuningSpace, table: CostTable) -> None:
        self._space = space
        self._table = table
        self._fp32_cost = table.cost(space.fp32())

    def path(
        self,
        model: LossModel,
        forbidden: Forbidden,
        drawn: NDArray[np.float64] | None = None,
    ) -> list[QuantConfig]:
        """The trade-off by the weights of the model, or by others."""
        return tradeoff(
            self._table,
            self._space,
            self._weights(model, drawn),
            forbidden=merged_options(self._unscored, forbidden),
        )

    def alone(self, model: LossModel, forbidden: Forbidden) -> list[QuantConfig]:
        """Each op quantized alone, in the option that loses least by the weights of the model.

        None where an op may not stay in FP32.
        """
        if not all(FP32 in tunable.options for tunable in self._space.tunables):
            return []
        weights = self._weights(model)
        unused = merged_options(self._unscored, forbidden)
        found = []
        for tunable in self._space.tunables:
            first = tunable.ops[0]
            options = [o for o in tunable.quantized if o.label not in unused.get(first, ())]
            if options:
                best = min(options, key=lambda option: weights[first][option.label])
                found.append(self._space.fp32().with_ops(dict.fromkeys(tunable.ops, best)))
        return found

    def polished(self, model: LossModel, config: QuantConfig, forbidden: Forbidden) -> QuantConfig:
        """The cheapest configuration with no more error than this one."""
        if len(self._space.tunables) > _MOST_POLISHED:
            return config
        weights = self._weights(model)
        # On a grid that is coarser than what the solver takes for equal, so that its solutions
        # are within the bound once they are rounded.
        largest = max(value for row in weights.values() for value in row.values())
        grid = {
            op: {label: float(math.ceil(_GRID * value / largest)) for label, value in row.items()}
            for op, row in weights.items()
        }
        better = cheapest(
            self._table,
            self._space,
            weights=grid,
            bound=sum(grid[t.ops[0]][config.ops[t.ops[0]].label] for t in self._space.tunables),
            forbidden=merged_options(self._unscored, forbidden),
        )
        if not better.quantized_ops:
            return config  # All in floats of 16 bits is no answer.
        saved = self._table.cost(config) - self._table.cost(better)
        return better if saved > _WORTH_POLISHING * abs(self._fp32_cost) else config

    def _weights(
        self, model: LossModel, drawn: NDArray[np.float64] | None = None
    ) -> Mapping[str, Mapping[str, float]]:
        """What each op adds to the error in each option."""
        values = model.weights if drawn is None else drawn
        # A group's weight is that of all its ops.
        return {
            tunable.ops[0]: {o.label: float(values[i, j]) for j, o in enumerate(tunable.options)}
            for i, tunable in enumerate(self._space.tunables)
        }

    @cached_property
    def scored(self) -> Mapping[str, tuple[OpConfig, ...]]:
        """The quantized options that are worth a look, by the tunable's name."""
        return {t.name: scored_options(t, self._table) for t in self._space.tunables}

    @cached_property
    def _unscored(self) -> Forbidden:
        """The options that are not used."""
        return {
            t.ops[0]: [o.label for o in t.quantized if o not in self.scored[t.name]]
            for t in self._space.tunables
        }


def cheapest_quantized(table: CostTable, space: TuningSpace, forbidden: Forbidden) -> QuantConfig:
    """The cheapest configuration; if that is FP32, the cheapest with everything quantized."""
    found = cheapest(table, space, forbidden=forbidden)
    if found.quantized_ops:
        return found
    floats = {
        op: [option.label for option in tunable.fallbacks]
        for tunable in space.tunables
        if tunable.quantized and not set(tunable.ops) & set(forbidden)
        for op in tunable.ops
    }
    return cheapest(table, space, forbidden=merged_options(floats, forbidden))
