"""The graphs that candidates are built from: the user's, and what recipes make of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.recipes.offered import changed
from optuna_quant.backends.onnxruntime.recipes.recipe import GraphRecipe
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES


if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs
    from optuna_quant.backends.onnxruntime.recipes.variant import Variant
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

MOST_VARIANTS = 8
"""How many variants are kept besides the user's graph; each may have its own weights."""

VariantKey = tuple[tuple[str, str, int | None], ...]
"""The recipes that make a variant: name, value, and sampling size where they look at the data."""

Decisions = list[list["NDArray[np.float64]"]]
"""What each recipe of a variant that looks at the data has decided by them."""


class Variants:
    """Gives the variant of a configuration, made when the first one needs it.

    Variants that share their first recipes share what those have made. Those used longest ago are
    given up where there are many.

    It has no lock of its own: one thread at a time may use it.

    Args:
        base:
            The user's graph.
        make:
            Gives the builder and the calibration of a graph.
        runs:
            What recipes run graphs with, by the calibration sampling size.
    """

    def __init__(
        self,
        base: Graph,
        make: Callable[[Graph], Variant],
        runs: Callable[[int | None], RunsGraphs],
    ) -> None:
        self._base_graph = base
        self._make = make
        self._runs = runs
        self._base: Variant | None = None
        self._kept: OrderedDict[VariantKey, Variant] = OrderedDict()
        self._graphs: OrderedDict[VariantKey, Graph] = OrderedDict()
        self._decisions: dict[VariantKey, list[NDArray[np.float64]]] = {}
        self._memories: dict[tuple[VariantKey, int | None], dict[object, object]] = {}
        self._spaces: list[TuningSpace] = []

    @property
    def base(self) -> Variant:
        """The variant without any recipe."""
        if self._base is None:
            self._base = self._made(self._base_graph)
        return self._base

    def of(self, config: QuantConfig) -> Variant:
        """The variant that a configuration is built from."""
        key = variant_key(config)
        if not key:
            return self.base
        if key not in self._kept:
            self._kept[key] = self._made(self._graph(key))
            if len(self._kept) > MOST_VARIANTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def is_decided(self, config: QuantConfig) -> bool:
        """Whether the variant of a configuration can be made without a look at the data."""
        return self._decisions.keys() >= set(_steps(config))

    def decisions(self, config: QuantConfig) -> Decisions:
        """What the recipes of a configuration have decided by the data."""
        self.of(config)
        return [list(self._decisions[key]) for key in _steps(config)]

    def decide(self, config: QuantConfig, decisions: Decisions) -> None:
        """Take what recipes have decided in another process."""
        for key, each in zip(_steps(config), decisions, strict=True):
            self._decisions.setdefault(key, list(each))

    def expect(self, space: TuningSpace) -> None:
        """From now on calibrate for the ops of this tuning space as well, in each variant."""
        self._spaces.append(space)
        for variant in (self.base, *self._kept.values()):
            variant.ranges.expect(space)

    def _made(self, graph: Graph) -> Variant:
        variant = self._make(graph)
        for space in self._spaces:
            variant.ranges.expect(space)
        return variant

    def _graph(self, key: VariantKey) -> Graph:
        """The graph after some recipes, of which each is applied to what the last has made."""
        if not key:
            return self._base_graph
        if key not in self._graphs:
            name, value, size = key[-1]
            recipe = RECIPES[name]
            assert isinstance(recipe, GraphRecipe)
            before = self._graph(key[:-1])
            memory = self._memories.setdefault((key[:-1], size), {})
            decisions = self._decisions.get(key, [])
            runs = replace(self._runs(size), memory=memory, decisions=decisions)
            self._graphs[key] = recipe.rewrite(before, value, runs)
            self._decisions[key] = decisions
            _logger.info(f"Recipe {name}={value}: the graph is rewritten.")
            if len(self._graphs) > 2 * MOST_VARIANTS:
                self._graphs.popitem(last=False)
        return self._graphs[key]


def variant_key(config: QuantConfig) -> VariantKey:
    """What tells variants apart; the sampling size only where a recipe looks at the data."""
    return tuple(
        (recipe.name, value, config.calibration_size if recipe.uses_data(value) else None)
        for recipe, value in changed(config)
        if isinstance(recipe, GraphRecipe)
    )


def _steps(config: QuantConfig) -> list[VariantKey]:
    """The keys of the graphs on the way to a variant whose last recipe looks at the data."""
    key = variant_key(config)
    steps = [key[: i + 1] for i in range(len(key))]
    return [step for step in steps if _uses_data(*step[-1][:2])]


def _uses_data(name: str, value: str) -> bool:
    recipe = RECIPES[name]
    return isinstance(recipe, GraphRecipe) and recipe.uses_data(value)
