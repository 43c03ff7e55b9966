"""The seconds that each op takes in each option, from profiles of a few whole models."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.costs.attribution import BEFORE
from optuna_quant.backends.onnxruntime.costs.attribution import OWN
from optuna_quant.backends.onnxruntime.costs.attribution import Share
from optuna_quant.backends.onnxruntime.costs.attribution import attribute
from optuna_quant.backends.onnxruntime.costs.classes import FLOAT
from optuna_quant.backends.onnxruntime.costs.classes import nearest_class
from optuna_quant.backends.onnxruntime.costs.classes import option_class
from optuna_quant.backends.onnxruntime.costs.fitting import Fitted
from optuna_quant.backends.onnxruntime.costs.fitting import Pairing
from optuna_quant.backends.onnxruntime.costs.fitting import fit_part
from optuna_quant.backends.onnxruntime.costs.fitting import merged
from optuna_quant.backends.onnxruntime.costs.profiling import ProfiledModel
from optuna_quant.costs import CostTable
from optuna_quant.costs import Validation
from optuna_quant.costs.timing import Timing
from optuna_quant.costs.timing import summarize


if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
    from optuna_quant.backends.onnxruntime.feeds import Feed
    from optuna_quant.backends.onnxruntime.quantized_model import SessionMaker
    from optuna_quant.config import QuantConfig
    from optuna_quant.space import TuningSpace


_logger = get_logger(__name__)

_WARMUP = 2
_FEWEST_ROUNDS = 5
_MOST_PROFILED = 15
_MOST_ROUNDS = 40
_PROFILED_SECONDS = 0.3
"""Which part of the time to measure goes to profiled runs."""


@dataclass(frozen=True, eq=False)
class Observed:
    """A model that has been profiled.

    Args:
        state:
            The class of each op.
        parts:
            The seconds of each part of each op, as the profile says.
        counts:
            The nodes in each part.
        timing:
            The time of the model as a whole, without a profile.
    """

    state: Mapping[str, str]
    parts: Mapping[tuple[str, str], float]
    counts: Mapping[tuple[str, str], float]
    timing: Timing

    @property
    def profiled(self) -> float:
        """The sum over all nodes."""
        return sum(self.parts.values())

    @property
    def nodes(self) -> float:
        """How many nodes run."""
        return sum(self.counts.values())


@dataclass(frozen=True, eq=False)
class Measured:
    """What has been measured.

    Args:
        observed:
            The models for the table.
        others:
            The times of further models.
    """

    observed: Sequence[Observed]
    others: Sequence[Timing]


def state_of(config: QuantConfig) -> dict[str, str]:
    """The class of each op in a configuration."""
    return {op: option_class(option) for op, option in config.ops.items()}


def measure(
    configs: Sequence[QuantConfig],
    others: Sequence[QuantConfig],
    *,
    build: Callable[[QuantConfig], onnx.ModelProto],
    sessions: SessionMaker,
    base_dir: Path | None,
    feed: Feed,
    outputs: Mapping[str, str],
    neighbours: Neighbours,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Profile models and measure them as wholes, in turn.

    Args:
        configs:
            The configurations to profile; one whose model does not load is left out.
        others:
            Those to measure only as wholes.
        build:
            Gives the model of a configuration.
        sessions:
            Makes sessions.
        base_dir:
            The directory that external data are relative to.
        feed:
            What the models are run on.
        outputs:
            The output tensor of each op in the original model.
        neighbours:
            The neighbours of the ops.
        seconds:
            How long models may run in all; a few runs of each are made at least.
        clock:
            Gives the time in seconds.
    """
    start = clock()
    profiled: list[tuple[QuantConfig, onnx.GraphProto, ProfiledModel]] = []
    for config in configs:
        proto = build(config)
        profiled.append((config, proto.graph, ProfiledModel(proto, sessions, base_dir)))
    plain = [sessions.make(build(config), base_dir) for config in others]
    loaded = clock()
    rounds = _rounds(
        [model.run for _, _, model in profiled],
        feed,
        seconds=seconds * _PROFILED_SECONDS,
        most=_MOST_PROFILED,
        clock=clock,
    )
    profiles = [model.finish(skip=min(_WARMUP, rounds - 1)) for _, _, model in profiled]
    read = clock()
    runs = [partial(model.session.run, None, feed) for _, _, model in profiled]
    runs += [partial(session.run, None, feed) for session in plain]
    times: list[list[float]] = [[] for _ in runs]
    for run in runs[len(profiled) :]:
        for _ in range(_WARMUP):
            run()
    begun = clock()
    for number in range(_MOST_ROUNDS):
        if number >= _FEWEST_ROUNDS and clock() - begun > seconds * (1 - _PROFILED_SECONDS):
            break
        for mine, run in zip(times, runs, strict=True):
            before = clock()
            run()
            mine.append(clock() - before)
    timings = summarize(times)
    ran = clock()
    observed = []
    for (config, graph, model), profile, timing in zip(
        profiled, profiles, timings[: len(profiled)], strict=True
    ):
        shares: Mapping[str, Sequence[Share]] = {}
        if model.graph is not None:
            shares = attribute(graph, model.graph, outputs, neighbours)
        parts: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], float] = {}
        for name, duration in profile.nodes.items():
            if model.graph is not None and name not in shares:
                continue  # Inside of a loop, whose node has this time too.
            for share in shares.get(name, [Share("", OWN)]):
                key = share.op, share.part
                parts[key] = parts.get(key, 0.0) + share.share * duration
                counts[key] = counts.get(key, 0.0) + share.share
        observed.append(Observed(state_of(config), parts, counts, timing))
    _logger.debug(
        f"Costs: {len(configs)} models profiled and {len(others)} more measured; building and "
        f"loading {loaded - start:.2f} s, {rounds} profiled runs each {read - loaded:.2f} s, "
        f"{len(times[0])} runs each {ran - read:.2f} s, attribution {clock() - ran:.2f} s."
    )
    return Measured(observed, timings[len(profiled) :])


def _rounds(
    runs: Sequence[Callable[[Feed], None]],
    feed: Feed,
    *,
    seconds: float,
    most: int,
    clock: Callable[[], float],
) -> int:
    """Run in turn; gives how often."""
    begun = clock()
    for number in range(_WARMUP + most):
        if number >= _WARMUP + _FEWEST_ROUNDS and clock() - begun > seconds:
            return number
        for run in runs:
            run(feed)
    return _WARMUP + most


def latency_table(
    space: TuningSpace, observed: Sequence[Observed], neighbours: Neighbours
) -> CostTable:
    """The table of what profiles have shown.

    Args:
        space:
            The tuning space.
        observed:
            The models.
        neighbours:
            The neighbours of the ops.
    """
    per_node, per_run, factor = node_overhead(observed)
    states = [each.state for each in observed]
    fitted = Fitted()

    def values(op: str, part: str) -> list[float]:
        return [
            factor
            * max(
                0.0,
                each.parts.get((op, part), 0.0) + per_node * each.counts.get((op, part), 0.0),
            )
            for each in observed
        ]

    ops = [op for tunable in space.tunables for op in tunable.ops]
    for op in ops:
        behind = neighbours.behind.get(op, ())
        beside = neighbours.beside.get(op, ())
        before = neighbours.before.get(op, ())
        own = [Pairing(op, others) for others in (behind, beside) if others]
        fit_part(fitted, op, own, states, values(op, OWN))
        fit_part(fitted, op, [Pairing(o, (op,)) for o in before], states, values(op, BEFORE))
    rest = np.median(np.array(values("", OWN)) + np.array(values("", BEFORE)))
    costs = {
        op: {
            option.label: _of_class(fitted.ops[op], option_class(option))
            for option in tunable.options
        }
        for tunable in space.tunables
        for op in tunable.ops
    }
    for op, options in costs.items():
        # What everything is measured against, whether the space offers it or not.
        options.setdefault(FLOAT, _of_class(fitted.ops[op], FLOAT))
    boundaries = merged(fitted.boundaries)
    return CostTable("latency", "s", costs, boundaries, float(rest) + per_run)


def _of_class(known: Mapping[str, float], wanted: str) -> float:
    return known[wanted if wanted in known else nearest_class(wanted, list(known))]


def node_overhead(observed: Sequence[Observed]) -> tuple[float, float, float]:
    """What makes sums over a profile agree with the times of whole models.

    The runtime writes down every node, which takes a while, and the profile says nothing of what
    is between nodes; both are in proportion to the number of nodes. So a whole model takes the sum
    over its nodes, and as much more or less for each node, and for each run.

    Args:
        observed:
            The models.

    Returns:
        The seconds to add to each node and to each run, and a factor for what is left.
    """
    sums = np.array([each.profiled for each in observed])
    counts = np.array([each.nodes for each in observed])
    whole = np.array([each.timing.seconds for each in observed])
    if len(observed) < 3 or not np.all(whole > 0):
        return 0.0, 0.0, _ratio(whole, sums)
    weights = 1.0 / whole
    matrix = np.stack([counts], axis=1) * weights[:, np.newaxis]
    (per_node,) = np.linalg.lstsq(matrix, (whole - sums) * weights, rcond=None)[0]
    per_node = float(np.clip(per_node, -0.8 * float(np.min(sums / counts)), 20e-6))
    return per_node, 0.0, _ratio(whole, sums + per_node * counts)


def _ratio(whole: np.ndarray, sums: np.ndarray) -> float:
    return float(np.median(whole / sums)) if np.all(sums > 0) else 1.0


def validate(predicted: Sequence[float], timings: Sequence[Timing]) -> Validation | None:
    """Compare predictions with measurements; None if there are too few.

    Args:
        predicted:
            The predicted seconds of each model.
        timings:
            The measured ones.
    """
    if len(predicted) < 3:
        return None
    from scipy.stats import spearmanr

    measured = [timing.seconds for timing in timings]
    noise = float(np.median([timing.noise for timing in timings]))
    correlation = None
    if np.std(measured) > 2 * noise and np.ptp(predicted) > 0:
        correlation = float(spearmanr(predicted, measured).statistic)
    return Validation(tuple(predicted), tuple(measured), noise, correlation)
