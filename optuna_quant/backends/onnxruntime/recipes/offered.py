"""The recipes that are offered for one model, and what configurations say about recipes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.recipes.recipe import ConfigRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import GraphRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import WriterRecipe
from optuna_quant.backends.onnxruntime.recipes.request import check_value
from optuna_quant.backends.onnxruntime.recipes.request import recipe_named
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES
from optuna_quant.backends.onnxruntime.static.write_options import AS_USUAL
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.backends.onnxruntime.recipes.recipe import Recipe
    from optuna_quant.backends.onnxruntime.recipes.request import RequestedRecipes
    from optuna_quant.space.keys import RecipeValue


_logger = get_logger(__name__)


class OfferedRecipes:
    """Of the recipes that a user asks for, those that change something in one model.

    Args:
        requested:
            What the user asks for. A recipe that is named and left out deserves a warning.
        facts:
            Gives what recipes are told of the model; asked once, if there is a request.
    """

    def __init__(
        self,
        requested: RequestedRecipes,
        facts: Callable[[], ModelFacts],
    ) -> None:
        self._requested = requested
        self._facts = facts
        self._told: set[str] = set()

    @cached_property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The values of each recipe that is offered, as a capability has them."""
        requested = self._requested
        if not requested.values and not requested.is_auto:
            return {}
        facts = self._facts()
        found = {}
        for name, recipe in RECIPES.items():
            values = requested.values.get(name)
            if values is None:
                if requested.is_auto and (values := _usual(recipe, facts)):
                    found[name] = values
                continue
            reason = recipe.reason_against(facts)
            kept = values if reason else recipe.distinct(values, facts)
            if reason is None and set(kept) == {recipe.default} != set(values):
                reason = f"what is asked for means {recipe.default!r} in this model"
            if reason is None:
                found[name] = kept
            elif set(values) != {recipe.default}:
                self.tell_left_out(name, reason)
        return found

    @cached_property
    def others(self) -> tuple[str, ...]:
        """The recipes that were not asked for, and may lower errors in this model."""
        facts, found = self._facts(), []
        for name, recipe in RECIPES.items():
            is_asked = name in self._requested.values or name in self.values
            if is_asked or not (recipe.in_all and recipe.lowers_errors):
                continue
            if recipe.reason_against(facts) is None:
                values = recipe.distinct(recipe.offered({}), facts)
                if set(values) != {recipe.default}:
                    found.append(name)
        return tuple(found)

    def tell_left_out(self, name: str, reason: str) -> None:
        """Tell the user, once, that a recipe has no effect, and why."""
        if name not in self._told:
            self._told.add(name)
            tell = _logger.warning if name in self._requested.named else _logger.info
            tell(f"Recipe {name!r} is left out, since it would change nothing: {reason}.")

    @property
    def use_data(self) -> bool:
        """Whether a recipe that is offered uses the calibration data."""
        return any(
            recipe.uses_data(value)
            for name, values in self.values.items()
            for value in values
            if isinstance(recipe := RECIPES[name], GraphRecipe) and value != recipe.default
        )

    @property
    def correct_biases(self) -> bool:
        """Whether a recipe that is offered corrects biases by the means of ops' inputs."""
        return any(
            recipe.written(AS_USUAL, value).correct_biases
            for name, values in self.values.items()
            for value in values
            if isinstance(recipe := RECIPES[name], WriterRecipe) and value != recipe.default
        )

    def configured(self, config: QuantConfig) -> QuantConfig:
        """The configuration that is built for another, once its recipes have changed it.

        Raises:
            ValueError:
                If it has a recipe that does not exist, or one with a value that it does not have.
        """
        for name, value in config.recipes.items():
            check_value(name, value)
        for recipe, value in changed(config):
            if isinstance(recipe, ConfigRecipe):
                config = recipe.configured(config, value, self._facts().graph)
        return config

    def as_scored(self, config: QuantConfig) -> QuantConfig:
        """The configuration whose ops are scored in place of another.

        Recipes that it does not name have their first value here, and so have those that do not
        lower the errors of the same ops.
        """
        kept: dict[str, RecipeValue] = {name: values[0] for name, values in self.values.items()}
        for name, value in config.recipes.items():
            recipe = RECIPES.get(name)
            if recipe is not None and recipe.lowers_errors:
                kept[name] = value
        return QuantConfig(config.ops, kept, config.calibration_size)


def _usual(recipe: Recipe, facts: ModelFacts) -> tuple[str, ...]:
    return () if recipe.reason_against(facts) else recipe.usual(facts)


def changed(config: QuantConfig) -> list[tuple[Recipe, str]]:
    """The recipes that do not have their default in a configuration, in the table's order."""
    found = []
    for name in RECIPES:
        value = config.recipes.get(name, RECIPES[name].default)
        if value != RECIPES[name].default:
            assert isinstance(value, str)
            found.append((recipe_named(name), value))
    return found
