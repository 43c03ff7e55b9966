"""What recipes cost: what each value changes in the model with everything quantized."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
import math
import time
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.costs.runs import uses_one_thread
from optuna_quant.backends.onnxruntime.costs.shapes import tensor_shapes
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES
from optuna_quant.costs.operations import FLOAT_BITS
from optuna_quant.costs.timing import time_interleaved


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.costs import CostTable
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_SECONDS = 1.0
_ROUNDS = 60
_NOISE = 0.02
"""By what part the times of two sessions of one model may differ."""


@dataclass(frozen=True, eq=False)
class RecipeModels:
    """Gives models with recipes that are only measured, calibrated on few samples.

    Args:
        quantize:
            Gives the model of a configuration.
        configured:
            Gives the configuration that is built in the place of another.
        graph:
            Gives the graph that it is built from.
    """

    quantize: Callable[[QuantConfig], QuantizedModel]
    configured: Callable[[QuantConfig], QuantConfig]
    graph: Callable[[QuantConfig], Graph]


def with_recipe_costs(
    tables: Mapping[str, CostTable],
    space: TuningSpace,
    models: RecipeModels,
    feed: Feed,
    samples: int,
    sessions: SessionMaker,
) -> dict[str, CostTable]:
    """Tables that know what the values of recipes add.

    Those that are free add nothing, and are not measured.

    Args:
        tables:
            The tables of the ops, by measure.
        space:
            The tuning space.
        models:
            Gives the models.
        feed:
            What they are run on.
        samples:
            How many samples that is.
        sessions:
            Makes sessions.
    """
    plain = space.default().with_calibration_size(None)
    places = [
        (name, value)
        for name, values in space.recipes.items()
        if not RECIPES[name].is_free
        for value in values[1:]
    ]
    if not places or not plain.quantized_ops:
        return dict(tables)
    configs = [plain, *(plain.with_recipe(name, value) for name, value in places)]
    costs: dict[str, list[float]] = {}
    if "size" in tables:
        costs["size"] = [float(models.quantize(config).nbytes) for config in configs]
    if "latency" in tables:
        costs["latency"] = _times([models.quantize(c) for c in configs], feed, sessions)
    counted = [name for name in ("multiply_adds", "bit_operations") if name in tables]
    factors = [_new_factors(models, config, plain, feed, sessions) / samples for config in configs]
    for name in counted:
        each = 1 if name == "multiply_adds" else FLOAT_BITS**2
        costs[name] = [
            tables[name].cost(models.configured(config)) + each * count
            for config, count in zip(configs, factors, strict=True)
        ]
    found = dict(tables)
    for name, values in costs.items():
        recipes: dict[str, dict[str, float]] = {}
        for (recipe, value), cost in zip(places, values[1:], strict=True):
            if cost != values[0]:
                recipes.setdefault(recipe, {})[str(value)] = cost - values[0]
        found[name] = replace(tables[name], recipes=recipes)
    return found


def _times(models: list[QuantizedModel], feed: Feed, sessions: SessionMaker) -> list[float]:
    """The seconds of a run of each model; that of the first where they differ by noise alone."""
    runs = [lambda model=model: model.session.run(None, feed) for model in models]
    timings = time_interleaved(
        runs,
        rounds=_ROUNDS,
        seconds=_SECONDS,
        clock=time.thread_time if uses_one_thread(sessions) else time.perf_counter,
    )
    first, *others = timings
    found = [first.quickest]
    for timing in others:
        noise = max(_NOISE * first.quickest, 2 * math.hypot(timing.noise, first.noise))
        differs = abs(timing.quickest - first.quickest) > noise
        found.append(timing.quickest if differs else first.quickest)
    return found


def _new_factors(
    models: RecipeModels,
    config: QuantConfig,
    plain: QuantConfig,
    feed: Feed,
    sessions: SessionMaker,
) -> int:
    """How many values are multiplied by nodes that the recipes have inserted."""
    graph = models.graph(config)
    known = {node.name for node in models.graph(plain).nodes}
    new = [n.output[0] for n in graph.nodes if n.op_type == "Mul" and n.name not in known]
    shapes = tensor_shapes(graph, feed, new, sessions)
    return sum(math.prod(shapes[name]) for name in new)
