"""Making the cost tables of a model."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant._common.steps import doing
from optuna_quant.backends.onnxruntime.costs.classes import design
from optuna_quant.backends.onnxruntime.costs.classes import is_changed
from optuna_quant.backends.onnxruntime.costs.classes import random_configs
from optuna_quant.backends.onnxruntime.costs.latency import latency_table
from optuna_quant.backends.onnxruntime.costs.latency import state_of
from optuna_quant.backends.onnxruntime.costs.latency import validate
from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
from optuna_quant.backends.onnxruntime.costs.neighbours import find_neighbours
from optuna_quant.backends.onnxruntime.costs.operations import multiply_adds
from optuna_quant.backends.onnxruntime.costs.operations import needed_tensors
from optuna_quant.backends.onnxruntime.costs.recipes import with_recipe_costs
from optuna_quant.backends.onnxruntime.costs.runs import Bench
from optuna_quant.backends.onnxruntime.costs.runs import Measured
from optuna_quant.backends.onnxruntime.costs.runs import measure
from optuna_quant.backends.onnxruntime.costs.runs import uses_one_thread
from optuna_quant.backends.onnxruntime.costs.shapes import tensor_shapes
from optuna_quant.backends.onnxruntime.costs.size import group_bytes
from optuna_quant.backends.onnxruntime.costs.size import size_table
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs import Validation
from optuna_quant.costs.machine import machine_conditions
from optuna_quant.costs.operations import operation_tables
from optuna_quant.workers.cores import available_cores


if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.costs.recipes import RecipeModels
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

_COUNTED_MIXTURES = 4

_AGAIN = 3
"""Of how many models a second session is measured."""


@dataclass(frozen=True, eq=False)
class CostSource:
    """What the costs of a model are made from.

    Args:
        graph:
            The model in normal form.
        original:
            The model as the user gave it.
        original_bytes:
            Its size, external data included.
        base_dir:
            The directory that external data are relative to.
        sessions:
            Makes sessions.
        build:
            Gives the model of a configuration.
        feed:
            What the models are run on.
        samples:
            How many samples that is.
        target:
            What the models are for, if it is not this CPU.
        is_simulated:
            Whether they are only simulated here, so that their times mean nothing.
        recipe_models:
            Gives models with recipes; None if there are none.
    """

    graph: Graph
    original: onnx.ModelProto
    original_bytes: int
    base_dir: Path | None
    sessions: SessionMaker
    build: Callable[[QuantConfig], onnx.ModelProto]
    feed: Feed
    samples: int
    target: str | None = None
    is_simulated: bool = False
    recipe_models: RecipeModels | None = None


def measure_costs(
    source: CostSource,
    space: TuningSpace,
    *,
    seed: int = 0,
    seconds: float = 3.0,
    mixtures: int = 4,
    checks: int = 6,
    clock: Callable[[], float] = time.perf_counter,
) -> Costs:
    """Make the tables of the latency, the size and the operations.

    Args:
        source:
            The model.
        space:
            The tuning space.
        seed:
            Of the configurations that are measured.
        seconds:
            How long models may run, in all. Making them comes on top.
        mixtures:
            How many models that are quantized in part are profiled.
        checks:
            How many further ones the predictions are compared with; 0 for none.
        clock:
            Gives the time in seconds.
    """
    start = clock()
    ops = [op for tunable in space.tunables for op in tunable.ops]
    neighbours = find_neighbours(source.graph, ops)
    configs = design(space, neighbours, mixtures=mixtures, seed=seed)
    others = random_configs(space, checks, seed=seed)
    outputs = {node.name: node.output[0] for node in source.graph.nodes if node.output}
    sizes: dict[str, Mapping[tuple[str, ...], int]] = {}

    def build(config: QuantConfig) -> onnx.ModelProto:
        model = source.build(config)
        if is_changed(config):
            sizes[config.key] = group_bytes(model, source.graph, neighbours)
        return model

    bench = Bench(
        build,
        source.sessions,
        source.base_dir,
        source.feed,
        {op: outputs[op] for op in ops},
        neighbours,
    )
    # A second session of some models shows how far sessions of the same model differ.
    again = configs[:_AGAIN] if checks else []
    with doing("Measuring what ops take, once for each model and machine"):
        measured = measure(configs, [*others, *again], bench, seconds=seconds)
    _say_refused(measured.refused)
    latency = latency_table(space, measured.observed, neighbours, refused=measured.refused)
    validation = _validation(latency, measured, others, again)
    ran = clock()
    known = [config for config in (*configs, *others) if config.key in sizes]
    size = _size_table(source, space, neighbours, {config: sizes[config.key] for config in known})
    sized = clock()
    counts, bit_operations = _operation_tables(source, space)
    _logger.debug(
        f"Costs: latency {ran - start:.2f} s, size {sized - ran:.2f} s, operations "
        f"{clock() - sized:.2f} s."
    )
    found = Costs(
        _with_recipes(source, space, latency, size, counts, bit_operations),
        conditions(source),
        validation,
        clock() - start,
    )
    _logger.info(_told(found, len(configs)))
    return found


def _validation(
    latency: CostTable,
    measured: Measured,
    others: Sequence[QuantConfig],
    again: Sequence[QuantConfig],
) -> Validation | None:
    """How the table agrees with models that were measured as wholes.

    Args:
        latency:
            The table.
        measured:
            What was measured: first of ``others``, then of ``again``.
        others:
            Configurations to compare predictions with.
        again:
            Configurations that were measured a second time.
    """
    compared = [k for k in range(len(others)) if k in measured.others]
    repeated = [
        (each.timing, measured.others[len(others) + k])
        for k, config in enumerate(again)
        for each in measured.observed
        if each.state == state_of(config) and len(others) + k in measured.others
    ]
    return validate(
        [latency.cost(others[k]) for k in compared],
        [measured.others[k] for k in compared],
        repeated,
    )


def count_costs(source: CostSource, space: TuningSpace, *, seed: int = 0) -> Costs:
    """Make the tables that need no measurement: the size and the operations.

    Args:
        source:
            The model.
        space:
            The tuning space.
        seed:
            Of the configurations that are built.
    """
    start = time.perf_counter()
    ops = [op for tunable in space.tunables for op in tunable.ops]
    neighbours = find_neighbours(source.graph, ops)
    configs = design(space, neighbours, mixtures=_COUNTED_MIXTURES, seed=seed)
    sizes = {
        config: group_bytes(source.build(config), source.graph, neighbours)
        for config in configs
        if is_changed(config)
    }
    size = _size_table(source, space, neighbours, sizes)
    return Costs(
        _with_recipes(source, space, size, *_operation_tables(source, space)),
        conditions(source),
        None,
        time.perf_counter() - start,
    )


def _with_recipes(
    source: CostSource, space: TuningSpace, *tables: CostTable
) -> dict[str, CostTable]:
    found = {table.measure: table for table in tables}
    if source.recipe_models is None:
        return found
    return with_recipe_costs(
        found, space, source.recipe_models, source.feed, source.samples, source.sessions
    )


def _size_table(
    source: CostSource,
    space: TuningSpace,
    neighbours: Neighbours,
    sizes: Mapping[QuantConfig, Mapping[tuple[str, ...], int]],
) -> CostTable:
    plain = group_bytes(source.graph.to_model(), source.graph, neighbours)
    return size_table(
        space,
        source.original_bytes,
        [plain, *sizes.values()],
        [state_of(space.fp32()), *map(state_of, sizes)],
    )


def _say_refused(refused: set[tuple[str, str]]) -> None:
    if refused:
        listed = ", ".join(f"{op!r} as {name}" for op, name in sorted(refused))
        _logger.warning(
            f"ONNX Runtime does not load the model with these ops quantized: {listed}. In the "
            "latency table these options cost as much as FP32 plus the whole model, so that "
            "they do not look fast; op_name_dict can leave them out of the space."
        )


def _operation_tables(source: CostSource, space: TuningSpace) -> tuple[CostTable, CostTable]:
    """The tables of multiply-adds in floats and of bit operations, for one sample."""
    nodes = source.graph.nodes
    shapes = tensor_shapes(source.graph, source.feed, needed_tensors(nodes), source.sessions)
    counts: dict[str, float] = {}
    unknown = []
    for node in nodes:
        try:
            counts[node.name] = multiply_adds(node, shapes) / source.samples
        except (KeyError, IndexError, ValueError):
            unknown.append(node.name)
    if unknown:
        _logger.warning(
            f"The multiply-adds of {', '.join(unknown)} are not known, because the shapes of "
            "their inputs are not: they count as zero."
        )
    return operation_tables(counts, space)


def conditions(source: CostSource) -> dict[str, str]:
    """Under which conditions costs are measured, for people and to compare."""
    import onnxruntime

    options = source.sessions.options
    threads = 0 if options is None else options.intra_op_num_threads
    providers = [p if isinstance(p, str) else p[0] for p in source.sessions.providers]
    target = {} if source.target is None else {"target": _target(source)}
    return {
        **target,
        "runtime": f"ONNX Runtime {onnxruntime.__version__}, {', '.join(providers)}",
        **machine_conditions(),
        "threads": str(threads or available_cores()),
        "clock": "processor time" if uses_one_thread(source.sessions) else "elapsed time",
        "batch": str(source.samples),
        "inputs": ", ".join(
            f"{name} {'x'.join(map(str, array.shape))}" for name, array in source.feed.items()
        ),
    }


def _target(source: CostSource) -> str:
    return f"{source.target}{', simulated' if source.is_simulated else ''}"


def _told(costs: Costs, models: int) -> str:
    validation = costs.validation
    if validation is None:
        agrees = "not compared with other models"
    elif validation.rank_correlation is None:
        agrees = "the models used for comparison differ by no more than noise"
    else:
        agrees = (
            f"rank correlation {validation.rank_correlation:.2f} with "
            f"{len(validation.measured)} other models"
        )
    return (
        f"Costs measured with {models} models in {costs.seconds:.1f} s, batch "
        f"{costs.conditions['batch']}, {costs.conditions['threads']} threads: {agrees}."
    )
