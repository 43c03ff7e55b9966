"""Stages that find how ops are quantized, not which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import itertools
import math
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._plans import op_types


if TYPE_CHECKING:
    from optuna_quant.samplers._plans.best import Best
    from optuna_quant.samplers._plans.comparisons import Comparisons
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class Settings:
    """Presets; then op types, dynamic mode, recipes and calibration sizes on top of the best.

    Args:
        comparisons:
            Evaluates configurations.
        limit:
            The most configurations that the op-type-wise stages take; :obj:`None` for all.
        is_inc2:
            Whether the order is that of neural-compressor 2.
    """

    comparisons: Comparisons
    limit: int | None
    is_inc2: bool

    def presets(self, space: TuningSpace, best: Best) -> Plan:
        """The pre-defined settings of the space.

        Args:
            space:
                The tuning space.
            best:
                The best so far, which has seen the default.
        """
        configs = list(space.preset_configs().values())
        if configs:
            yield from self.comparisons.compare("pre-defined settings", configs, best)

    def stages(self, space: TuningSpace, best: Best) -> Plan:
        """The stages after those of the default and the presets.

        Args:
            space:
                The tuning space.
            best:
                The best so far, which has seen them.
        """
        if self.is_inc2:
            yield from self._all_recipes(space, best)
            yield from self._product(space, best)
        else:
            yield from self._op_types(space, best)
        dynamic = _all_dynamic(space, best.config)
        if dynamic != best.config:
            yield from self.comparisons.compare("static to dynamic", [dynamic], best)
        yield from self._recipes(space, best)
        sizes = [size for size in space.calibration_sizes if size != best.config.calibration_size]
        if sizes:
            configs = [best.config.with_calibration_size(size) for size in sizes]
            yield from self.comparisons.compare("calibration size", configs, best)

    def _op_types(self, space: TuningSpace, best: Best) -> Plan:
        options = op_types.type_options(space)
        base = best.config
        singles = op_types.single_changes(options)[: self.limit]
        configs = [op_types.apply(space, base, [choice]) for choice in singles]
        if not configs:
            return
        reference, results = yield from self.comparisons.compare("op-type-wise", configs, best)
        gains = {
            choice: _gain(result.score, reference)
            for choice, result in zip(singles, results, strict=True)
        }
        combined: Iterable[QuantConfig] = (
            op_types.apply(space, base, changes)
            for changes in op_types.combinations(gains, only_gains=self.limit is not None)
        )
        if self.limit is not None:
            combined = itertools.islice(combined, self.limit - len(singles))
        yield from self.comparisons.in_batches("op-type-wise combined", combined, best)

    def _product(self, space: TuningSpace, best: Best) -> Plan:
        options = op_types.inc2_order(op_types.type_options(space))
        configs = (
            op_types.apply(space, space.default(), choices)
            for choices in op_types.product(options)
        )
        # The first is the default.
        limit = None if self.limit is None else self.limit + 1
        yield from self.comparisons.in_batches(
            "op-type-wise", itertools.islice(configs, 1, limit), best
        )

    def _recipes(self, space: TuningSpace, best: Best) -> Plan:
        base = best.config
        if not self.is_inc2:
            yield from self._all_recipes(space, best)
        single = [
            base.with_recipe(name, value)
            for name, values in space.recipes.items()
            for value in values
            if value != base.recipes[name]
        ]
        if single:
            yield from self.comparisons.compare("recipes one by one", single, best)

    def _all_recipes(self, space: TuningSpace, best: Best) -> Plan:
        config = base = best.config
        for name, values in space.recipes.items():
            config = config.with_recipe(name, values[-1])
        if config != base:
            yield from self.comparisons.compare("all recipes", [config], best)


def _gain(score: float, reference: float) -> float:
    # Where the default itself failed there is nothing to gain over; zero takes its place.
    return score - (reference if math.isfinite(reference) else 0.0)


def _all_dynamic(space: TuningSpace, base: QuantConfig) -> QuantConfig:
    changes = {}
    for tunable in space.tunables:
        dynamic = [option for option in tunable.quantized if option.mode == "dynamic"]
        if dynamic and base.ops[tunable.ops[0]].mode == "static":
            changes.update(dict.fromkeys(tunable.ops, dynamic[0]))
    return base.with_ops(changes)
