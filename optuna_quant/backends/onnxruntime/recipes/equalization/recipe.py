"""The recipe ``equalization``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.equalization.equalize import equalized
from optuna_quant.backends.onnxruntime.recipes.recipe import GraphRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import Switch
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroups


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs


class Equalization(Switch, GraphRecipe):
    """Make the channels of successive layers equally large, for models with depthwise ones."""

    name = "equalization"
    lowers_errors = True

    def reason_against(self, facts: ModelFacts) -> str | None:
        if facts.approach == "weight_only":
            return "weights in groups have scales of their own"
        if not ScaleGroups(facts.graph).all():
            return "the model has no two layers with nothing but ReLU and the like between them"
        return None

    def rewrite(self, graph: Graph, value: str, runs: RunsGraphs) -> Graph:
        return equalized(graph)
