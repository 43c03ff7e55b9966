"""The recipes, in the order in which those of one kind are applied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.ends.recipes import FirstProduct
from optuna_quant.backends.onnxruntime.recipes.ends.recipes import LastProduct
from optuna_quant.backends.onnxruntime.recipes.ends.recipes import PrePostProcess
from optuna_quant.backends.onnxruntime.recipes.equalization.recipe import Equalization
from optuna_quant.backends.onnxruntime.recipes.matmuls import GemmToMatMul
from optuna_quant.backends.onnxruntime.recipes.session import OptimizationLevel
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.recipe import SmoothQuant
from optuna_quant.backends.onnxruntime.recipes.writing import DedicatedPairs
from optuna_quant.backends.onnxruntime.recipes.writing import FastBiasCorrection
from optuna_quant.backends.onnxruntime.recipes.writing import FloatOutputs
from optuna_quant.backends.onnxruntime.recipes.writing import WeightCorrection
from optuna_quant.backends.onnxruntime.recipes.writing import WeightPairs


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.recipes.recipe import Recipe


_ORDERED: tuple[Recipe, ...] = (
    Equalization(),
    SmoothQuant(),
    GemmToMatMul(),
    FirstProduct(),
    LastProduct(),
    PrePostProcess(),
    WeightCorrection(),
    FastBiasCorrection(),
    WeightPairs(),
    DedicatedPairs(),
    FloatOutputs(),
    OptimizationLevel(),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ORDERED})
"""All recipes by name."""
