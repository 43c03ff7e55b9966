"""An objective together with the costs of configurations, for one tuning space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.costs import Costs
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import Objective
from optuna_quant.costs.objective import WeightedObjective
from optuna_quant.costs.table import CostTable
from optuna_quant.costs.table import combined
from optuna_quant.space.config import FP32
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial

    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


class KnownObjective:
    """An objective that knows what each configuration of a tuning space costs.

    It is an :class:`~optuna_quant.costs.Objective` itself.

    Args:
        objective:
            The objective.
        space:
            The tuning space.
        costs:
            What is known of costs; it may have ops that the space does not have, which then run
            in FP32. Default: nothing.
        fp32_bytes:
            The real size of the FP32 model, where the size of others is relative to it. Default:
            as predicted.
    """

    def __init__(
        self,
        objective: Objective,
        space: TuningSpace,
        costs: Costs | None = None,
        *,
        fp32_bytes: float | None = None,
    ) -> None:
        self._fp32_bytes = fp32_bytes
        self.objective = objective
        self.space = space
        ops = frozenset(space.default().ops)
        tables = {} if costs is None else costs.tables
        self.costs = replace(
            Costs({}) if costs is None else costs,
            tables={name: table.within(ops, rest=FP32.label) for name, table in tables.items()},
        )
        self._of_trials: dict[object, dict[str, float]] = {}

    @property
    def name(self) -> str:
        """The objective's name."""
        return self.objective.name

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that it needs."""
        return self.objective.measures

    @property
    def times_are_given(self) -> bool:
        """Whether the user has said what configurations take, as for another device."""
        return self.costs.is_given and LATENCY in self.costs.tables

    @cached_property
    def fp32(self) -> Mapping[str, float]:
        """The measures of the FP32 model."""
        found = self.measures_of(self.space.fp32())
        if self._fp32_bytes is not None:
            found[SIZE] = float(self._fp32_bytes)
        return found

    @cached_property
    def fp32_cost(self) -> float:
        """What the FP32 model costs; infinite if that is not known."""
        return self.cost(self.fp32)

    def cost(
        self, measures: Mapping[str, float], fp32: Mapping[str, float] | None = None
    ) -> float:
        """The cost of a model by its measures; infinite if it is not known."""
        try:
            return float(self.objective.cost(measures, fp32 or self.fp32))
        except KeyError:  # An objective of the user's that looks for one that is not there.
            return math.inf

    def show(self, cost: float) -> str:
        """A cost for people."""
        return self.objective.show(cost)

    def measures_of(self, config: QuantConfig) -> dict[str, float]:
        """The measures of a configuration, as predicted."""
        found = {OPS: float(len(config.fallback_ops))}
        found |= {name: table.cost(config) for name, table in self.costs.tables.items()}
        own = getattr(self.objective, "measure", None)
        if own is not None:
            found[self.name] = own(config)
        return found

    def of(self, config: QuantConfig) -> float:
        """What a configuration costs, as predicted; infinite if that is not known."""
        return self.cost(self.measures_of(config))

    def measures_of_trial(self, trial: FrozenTrial) -> Mapping[str, float]:
        """The measures of a trial's model: its recorded size, and predictions for the rest.

        They follow from the configuration, so that other costs than those with which the study
        was started hold for trials that have ended as well.
        """
        key = (trial.number, trial.datetime_start)
        if key not in self._of_trials:
            try:
                found = self.measures_of(self.space.config_from_params(trial.params))
            except (KeyError, ValueError):  # It is not of this space.
                found = {}
            size = TrialView(trial).model_bytes
            if size is not None:
                found[SIZE] = float(size)
            if not trial.state.is_finished():
                return found
            self._of_trials[key] = found
        return self._of_trials[key]

    @cached_property
    def table(self) -> CostTable | None:
        """The objective as one table; :obj:`None` if what it needs is not known.

        A weighted objective is the weighted sum of its tables. What is no sum over ops, such as a
        function of the user's, is taken for one: each option of an op costs what it changes in
        the FP32 model.
        """
        tables: dict[str, CostTable] = {**self.costs.tables, OPS: fallback_table(self.space)}
        if any(measure not in tables and measure != self.name for measure in self.measures):
            return None
        if self.measures == (self.name,) and self.name in tables:
            return tables[self.name]
        if isinstance(self.objective, WeightedObjective):
            weights = self.objective.weights
            if not all(self.fp32[measure] > 0 for measure in weights):
                return None
            total = sum(weights.values())
            parts = [(tables[m], w / total / self.fp32[m]) for m, w in weights.items()]
            return combined(parts, measure=self.name)
        if not math.isfinite(self.fp32_cost):
            return None
        return linearized(self.of, self.space, measure=self.name)


def fallback_table(space: TuningSpace) -> CostTable:
    """The number of ops in fallback, as a table of costs.

    The FP32 model has a cost where no op may stay in FP32, too: answers are compared with it.

    Args:
        space:
            The tuning space.
    """
    ops = {
        op: {FP32.label: 1.0, **{o.label: float(not o.is_quantized) for o in t.options}}
        for t in space.tunables
        for op in t.ops
    }
    return CostTable(OPS, "", ops)


def linearized(
    cost: Callable[[QuantConfig], float], space: TuningSpace, *, measure: str, unit: str = ""
) -> CostTable:
    """A function of configurations as a table: what each option changes in the FP32 model.

    A value of a recipe adds what it changes in the default configuration.

    Args:
        cost:
            Gives the cost of a configuration. It is called once for each option of each op, and
            for each value of a recipe.
        space:
            The tuning space.
        measure:
            What the table measures.
        unit:
            Its unit.
    """
    fp32 = space.fp32()
    fixed = float(cost(fp32))
    ops: dict[str, dict[str, float]] = {}
    for tunable in space.tunables:
        first, *others = tunable.ops
        ops[first] = {FP32.label: 0.0}
        for option in tunable.options:
            if option != FP32:
                ops[first][option.label] = float(cost(tunable.set(fp32, option))) - fixed
        for op in others:
            ops[op] = dict.fromkeys(ops[first], 0.0)
    return CostTable(measure, unit, ops, (), fixed, _recipes(cost, space))


def _recipes(
    cost: Callable[[QuantConfig], float], space: TuningSpace
) -> dict[str, dict[str, float]]:
    recipes: dict[str, dict[str, float]] = {}
    default = space.default()
    for name, values in space.recipes.items():
        for value in values[1:]:
            added = float(cost(default.with_recipe(name, value))) - float(cost(default))
            if added:
                recipes.setdefault(name, {})[str(value)] = added
    return recipes
