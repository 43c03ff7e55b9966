"""Which recipes the sensitivities say are worth a trial: computed once per study, kept in it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import hashlib
import json
from typing import TYPE_CHECKING

from optuna_quant.backends.base import CountsPasses
from optuna_quant.backends.base import TakesSamples
from optuna_quant.samplers._engine.scores import key_of
from optuna_quant.samplers._models.option_scores import score_options
from optuna_quant.study import record
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.compute_once import LeaseMonitor


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs import CostTable
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.keys import RecipeValue
    from optuna_quant.space.space import TuningSpace


_WORTH_A_TRIAL = 0.8
"""A recipe is worth a trial if it leaves no more than this part of the error."""
_WORTH_ITS_PRICE = 0.5
"""A further one on top of it, which costs something, if it leaves no more than this part."""
_WORTH_TAKING = 0.9
"""One that costs nothing, with others, if it leaves no more than this part: less is noise."""
_FREE = 0.005
"""What costs no more than this part of the configuration costs nothing."""
_ALIKE = 2.0
"""Of values whose errors differ by no more than this factor the first one is taken."""
_CURED = 0.01
"""What is left is not looked at any closer once it is this part of the error without recipes."""


@dataclass(frozen=True)
class RecipeChoice:
    """The recipes that promise the least error.

    Args:
        recipes:
            The value of each recipe of the space.
        error:
            The error that is expected with them, as a part of that without.
    """

    recipes: Mapping[str, RecipeValue]
    error: float


class RecipeChoices:
    """Chooses recipes by the sensitivities, and keeps the choice in the study.

    Args:
        space:
            The tuning space.
        config:
            The configuration whose error is to become smaller, with the default recipes.
        sensitivity:
            Scores the ops of configurations, recipes included.
        table:
            What configurations cost, recipes included.
    """

    def __init__(
        self,
        space: TuningSpace,
        config: QuantConfig,
        sensitivity: Sensitivity,
        table: CostTable,
    ) -> None:
        self._space = space
        self._table = table
        self._config = config
        self._sensitivity = sensitivity
        self._monitor = LeaseMonitor()
        self._found: dict[str, RecipeChoice] = {}

    def read(self, study: optuna.Study, samples: int | None) -> RecipeChoice | None:
        """The choice, if the study holds it."""
        place = self._place(study, samples)
        if place.name not in self._found:
            data = place.read()
            if data is None:
                return None
            stored = json.loads(data)
            self._found[place.name] = RecipeChoice(stored["recipes"], stored["error"])
        return self._found[place.name]

    def compute(self, study: optuna.Study, samples: int | None) -> bool:
        """Choose and keep the choice; :obj:`False` if another worker is doing so.

        Args:
            study:
                The study.
            samples:
                The most samples to use; :obj:`None` for as many as the sensitivity uses.
        """
        return self._place(study, samples).offer(lambda: self._computed(samples)) is not None

    def _place(self, study: optuna.Study, samples: int | None) -> ComputeOnce:
        described = {name: list(values) for name, values in self._space.recipes.items()}
        text = json.dumps([key_of(self._sensitivity), samples, self._config.key, described])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return ComputeOnce(study, f"{record.RECIPE_CHOICE}:{digest}", monitor=self._monitor)

    def _computed(self, samples: int | None) -> bytes:
        sensitivity = self._sensitivity
        if samples is not None and isinstance(sensitivity, TakesSamples):
            sensitivity = sensitivity.with_samples(samples)
        errors = _Errors(sensitivity)
        first = errors.of(self._config)
        best, left = self._config, first
        while left > _CURED * first:
            better = self._better(best, _CURED * first, errors)
            if better is None:
                break
            best, left = better, errors.of(better)
        if left > _WORTH_A_TRIAL * first:
            best, left = self._config, first
        passes = 0.0
        if isinstance(sensitivity, CountsPasses):
            passes = float(sensitivity.passes(1)) * len(errors.known)
        error = left / first if first > 0 else 1.0
        kept = {"recipes": dict(best.recipes), "error": error, "passes": passes}
        return json.dumps(kept).encode()

    def _better(self, config: QuantConfig, cured: float, errors: _Errors) -> QuantConfig | None:
        """The configuration with one more recipe and the least error, if that is low enough."""
        tried = []
        for name, values in self._space.recipes.items():
            # What was chosen is not taken back, and what promises nothing alone is not tried on.
            if config.recipes[name] == values[0]:
                more = [value for value in values[1:] if self._promises(name, value, errors)]
                tried += [config.with_recipe(name, value) for value in more]
        errors.compute(tried)
        left = errors.of(config)
        found = [each for each in tried if errors.of(each) <= self._bound(config, each) * left]
        least = min(map(errors.of, found), default=0.0)
        alike = max(_ALIKE * least, cured)
        return next((each for each in found if errors.of(each) <= alike), None)

    def _promises(self, name: str, value: RecipeValue, errors: _Errors) -> bool:
        alone = self._config.with_recipe(name, value)
        known = errors.known.get(alone.key)
        return known is None or known <= _WORTH_TAKING * errors.of(self._config)

    def _bound(self, before: QuantConfig, after: QuantConfig) -> float:
        """What part of the error one more recipe may leave at most."""
        cost, later = self._table.cost(before), self._table.cost(after)
        if costs_nothing(cost, later):
            return _WORTH_TAKING
        if cost < self._table.cost(self._space.fp32()) <= later:
            return 0.0  # It takes more than quantization gives.
        return _WORTH_A_TRIAL if before is self._config else _WORTH_ITS_PRICE


class _Errors:
    """The summed scores of configurations, each computed once."""

    def __init__(self, sensitivity: Sensitivity) -> None:
        self._sensitivity = sensitivity
        self.known: dict[str, float] = {}

    def of(self, config: QuantConfig) -> float:
        self.compute([config])
        return self.known[config.key]

    def compute(self, configs: Sequence[QuantConfig]) -> None:
        """Compute the errors of configurations with the same ops, together if that can be."""
        missing = [config for config in configs if config.key not in self.known]
        if missing:
            ops = list(missing[0].quantized_ops)
            scored = score_options(self._sensitivity, missing, ops)
            for config, scores in zip(missing, scored, strict=True):
                self.known[config.key] = sum(max(0.0, score) for score in scores.values())


def costs_nothing(before: float, after: float) -> bool:
    """Whether what costs so much with a recipe costs no more than without it, but for noise.

    Args:
        before:
            The cost without the recipe.
        after:
            The cost with it.
    """
    return after <= before + _FREE * abs(before)


def with_recipes(space: TuningSpace, recipes: Mapping[str, RecipeValue]) -> TuningSpace:
    """The part of a space in which recipes have given values.

    Args:
        space:
            The space.
        recipes:
            The value of each of its recipes.
    """
    return replace(space, recipes={name: (recipes[name],) for name in space.recipes})


def has_recipes(space: TuningSpace) -> bool:
    """Whether a space has a recipe to choose."""
    return any(len(values) > 1 for values in space.recipes.values())
