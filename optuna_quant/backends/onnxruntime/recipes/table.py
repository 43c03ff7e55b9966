"""The recipes, in the order in which those of one kind are applied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.equalization.recipe import Equalization
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.recipe import SmoothQuant


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.recipes.recipe import Recipe


_ORDERED: tuple[Recipe, ...] = (Equalization(), SmoothQuant())

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ORDERED})
"""All recipes by name."""
