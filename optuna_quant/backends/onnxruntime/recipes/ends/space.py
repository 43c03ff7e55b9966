"""A tuning space without what recipes that keep ops in FP32 leave no choice of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.labels import OFF
from optuna_quant.backends.onnxruntime.recipes.recipe import ConfigRecipe
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.space.space import TuningSpace


def without_idle_choices(
    space: TuningSpace, graph: Graph, tell: Callable[[str, str], None] = lambda name, reason: None
) -> TuningSpace:
    """The tuning space in which no choice is without effect because of such a recipe.

    A recipe that keeps no op of the space in FP32 is taken out. The ops of one that is fixed have
    no option but FP32; where there is a choice, two configurations can still be one model.

    Args:
        space:
            The space.
        graph:
            The model in normal form.
        tell:
            Called with the name of a recipe that is taken out, and why.

    Raises:
        ValueError:
            If no op is left that can be quantized.
    """
    if not space.recipes:
        return space
    recipes = dict(space.recipes)
    tunables = list(space.tunables)
    fixed: list[str] = []
    for name, values in space.recipes.items():
        recipe = RECIPES[name]
        if not isinstance(recipe, ConfigRecipe):
            continue
        kept = recipe.float_ops(graph)
        found = [i for i, t in enumerate(tunables) if t.quantized and kept.issuperset(t.ops)]
        if not found:
            del recipes[name]
            if values != (recipe.default,):
                tell(name, "the ops that it keeps in FP32 are not tuned")
        elif values != (recipe.default,) and len(values) == 1:
            fixed.append(name)
            for i in found:
                floats = tunables[i].fallbacks or (FP32,)
                tunables[i] = replace(tunables[i], options=floats)
    if not any(t.quantized for t in tunables) and tuple(tunables) != space.tunables:
        raise ValueError(
            f"recipes: {' and '.join(f'{name}={OFF!r}' for name in fixed)} keep all ops of the "
            "tuning space in FP32, so that nothing is left to be quantized. Take one of them out "
            "of recipes, or tune other ops as well (op_types)."
        )
    return replace(space, tunables=tuple(tunables), recipes=recipes)
