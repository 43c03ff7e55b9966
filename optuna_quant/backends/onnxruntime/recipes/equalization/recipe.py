"""The recipe ``equalization``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.equalization.equalize import equalized
from optuna_quant.backends.onnxruntime.recipes.equalization.equalize import unevenness
from optuna_quant.backends.onnxruntime.recipes.recipe import GraphRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import Switch
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroups


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs


_UNEVEN = 4.0
"""Factors that differ by this much even out ranges that differ by its square: 4 of 8 bits."""


class Equalization(Switch, GraphRecipe):
    """Make the channels of successive layers equally large, for models with depthwise ones."""

    name = "equalization"
    lowers_errors = True
    is_free = True

    def reason_against(self, facts: ModelFacts) -> str | None:
        if facts.approach == "weight_only":
            return "weights in groups have scales of their own"
        if not ScaleGroups(facts.graph).all():
            return "the model has no two layers with nothing but ReLU and the like between them"
        return None

    def usual(self, facts: ModelFacts) -> tuple[str, ...]:
        # Without data no sensitivity says whether it is worth a trial.
        if not facts.has_data or unevenness(facts.graph) < _UNEVEN:
            return ()
        return self.offered({})

    def rewrite(self, graph: Graph, value: str, runs: RunsGraphs) -> Graph:
        return equalized(graph)
