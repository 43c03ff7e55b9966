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

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs
    from optuna_quant.backends.onnxruntime.recipes.variant import Variant
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

MOST_VARIANTS = 8
"""How many variants are kept besides the user's graph; each may have its own weights."""

_Key = tuple[tuple[str, str, int | None], ...]


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
        self._kept: OrderedDict[_Key, Variant] = OrderedDict()
        self._graphs: OrderedDict[_Key, Graph] = OrderedDict()
        self._memories: dict[tuple[_Key, int | None], dict[object, object]] = {}
        self._spaces: list[TuningSpace] = []

    @property
    def base(self) -> Variant:
        """The variant without any recipe."""
        if self._base is None:
            self._base = self._made(self._base_graph)
        return self._base

    def of(self, config: QuantConfig) -> Variant:
        """The variant that a configuration is built from."""
        key = _key(config)
        if not key:
            return self.base
        if key not in self._kept:
            self._kept[key] = self._made(self._graph(key))
            if len(self._kept) > MOST_VARIANTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

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

    def _graph(self, key: _Key) -> Graph:
        """The graph after some recipes, of which each is applied to what the last has made."""
        if not key:
            return self._base_graph
        if key not in self._graphs:
            name, value, size = key[-1]
            recipe = RECIPES[name]
            assert isinstance(recipe, GraphRecipe)
            before = self._graph(key[:-1])
            memory = self._memories.setdefault((key[:-1], size), {})
            runs = replace(self._runs(size), memory=memory)
            self._graphs[key] = recipe.rewrite(before, value, runs)
            _logger.info(f"Recipe {name}={value}: the graph is rewritten.")
            if len(self._graphs) > 2 * MOST_VARIANTS:
                self._graphs.popitem(last=False)
        return self._graphs[key]


def _key(config: QuantConfig) -> _Key:
    """What tells variants apart; the sampling size only where a recipe looks at the data."""
    return tuple(
        (recipe.name, value, config.calibration_size if recipe.uses_data(value) else None)
        for recipe, value in changed(config)
        if isinstance(recipe, GraphRecipe)
    )
