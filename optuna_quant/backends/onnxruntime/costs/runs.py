"""Running the models that a table is made from: profiled, and as wholes, in turn."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
import time
from typing import TYPE_CHECKING

import onnxruntime
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.costs.attribution import OWN
from optuna_quant.backends.onnxruntime.costs.attribution import Share
from optuna_quant.backends.onnxruntime.costs.attribution import attribute
from optuna_quant.backends.onnxruntime.costs.classes import option_class
from optuna_quant.backends.onnxruntime.costs.latency import Observed
from optuna_quant.backends.onnxruntime.costs.latency import state_of
from optuna_quant.backends.onnxruntime.costs.profiling import ProfiledModel
from optuna_quant.costs.timing import Timing
from optuna_quant.costs.timing import time_interleaved


if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.space.config import QuantConfig


_logger = get_logger(__name__)

_PROFILE_WARMUP = 1
_WARMUP = 2
_FEWEST_RUNS = 5
_MOST_RUNS = 150
_MOST_PROFILED = 40
_MOST_EVENTS = 2500
"""How many nodes are profiled of a model, over all runs; reading them takes time."""
_PROFILED = 0.4
"""Which part of the time to run goes to profiled runs."""
_LOADED_BYTES = 1 << 32
"""About how much memory sessions that are held at the same time may take."""
_BYTES_PER_BYTE = 3
"""What a session takes over the size of its model."""
_MOST_SEARCHED = 24
"""How many models are loaded to find which op keeps one from loading."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What models are run with.

    Args:
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
    """

    build: Callable[[QuantConfig], onnx.ModelProto]
    sessions: SessionMaker
    base_dir: Path | None
    feed: Feed
    outputs: Mapping[str, str]
    neighbours: Neighbours

    def load(self, config: QuantConfig) -> onnxruntime.InferenceSession:
        """A session of a configuration's model."""
        return self.sessions.make(self.build(config), self.base_dir)


@dataclass
class Measured:
    """What has been measured.

    Args:
        observed:
            The profiled models, the original one first.
        others:
            The times of the other configurations, by their position; one that does not load has
            none.
        refused:
            The ops and classes that the runtime does not load.
    """

    observed: list[Observed] = field(default_factory=list)
    others: dict[int, Timing] = field(default_factory=dict)
    refused: set[tuple[str, str]] = field(default_factory=set)


def uses_one_thread(sessions: SessionMaker) -> bool:
    """Whether a run of a session happens in the thread that asks for it, on the processor."""
    options = sessions.options
    return (
        options is not None
        and options.intra_op_num_threads == 1
        and options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        and [p if isinstance(p, str) else p[0] for p in sessions.providers]
        == ["CPUExecutionProvider"]
    )


def clock_of(sessions: SessionMaker) -> Callable[[], float]:
    """The clock to measure whole models by.

    Of a run in one thread the thread's own processor time is taken: on an idle machine that is
    the time that passes, and on a busy one what would pass on an idle one.
    """
    return time.thread_time if uses_one_thread(sessions) else time.perf_counter


def measure(
    configs: Sequence[QuantConfig],
    others: Sequence[QuantConfig],
    bench: Bench,
    *,
    seconds: float,
) -> Measured:
    """Profile models and measure them as wholes, in turn.

    Args:
        configs:
            The configurations to profile, FP32 first. Where a model does not load, the ops that
            are the reason are left in floats.
        others:
            Those to measure only as wholes.
        bench:
            What they are run with.
        seconds:
            How long models may run in all; a few runs of each are made at least.

    Raises:
        ModelLoadError:
            If the original model does not load.
    """
    found = Measured()
    size = bench.build(configs[0]).ByteSize()
    at_once = max(2, _LOADED_BYTES // max(1, _BYTES_PER_BYTE * size))
    part = seconds / (len(configs) + len(others))
    reference: Timing | None = None
    for number, batch in enumerate(_batches(len(configs) + len(others), at_once)):
        group = _Group(bench, found.refused)
        for k in batch:
            if k < len(configs):
                group.profile(configs[k], is_original=k == 0)
            else:
                group.add(k - len(configs), others[k - len(configs)])
        observed, timings = group.run(part * len(batch))
        # Groups that are not measured in turn are compared by the model that they share.
        first = observed[0].timing
        reference = reference or first
        scale = reference.quickest / first.quickest if first.quickest > 0 else 1.0
        found.observed += [
            replace(each, timing=_scaled(each.timing, scale)) for each in observed[number > 0 :]
        ]
        found.others.update((k, _scaled(timing, scale)) for k, timing in timings.items())
    return found


def _batches(count: int, at_once: int) -> Iterator[list[int]]:
    """Positions in groups; the first one is in every group."""
    yield list(range(min(count, at_once)))
    for start in range(at_once, count, at_once - 1):
        yield [0, *range(start, min(count, start + at_once - 1))]


def _scaled(timing: Timing, scale: float) -> Timing:
    return replace(
        timing,
        seconds=timing.seconds * scale,
        spread=timing.spread * scale,
        noise=timing.noise * scale,
        runs=tuple(scale * each for each in timing.runs),
    )


@dataclass(frozen=True, eq=False)
class _Profiled:
    state: Mapping[str, str]
    model: ProfiledModel
    shares: Mapping[str, Sequence[Share]] | None


class _Group:
    """Models that are held at the same time and run in turn."""

    def __init__(self, bench: Bench, refused: set[tuple[str, str]]) -> None:
        self._bench = bench
        self._refused = refused
        self._profiled: list[_Profiled] = []
        self._plain: dict[int, onnxruntime.InferenceSession] = {}
        self._start = time.perf_counter()

    def profile(self, config: QuantConfig, *, is_original: bool) -> None:
        """Load a model that is to be profiled, if it can be loaded."""
        try:
            self._load(without(config, self._refused))
        except ValueError:
            if is_original:
                raise
            found = find_refused(without(config, self._refused), self._loads)
            self._refused |= found
            try:
                self._load(without(config, self._refused))
            except ValueError as error:
                _logger.debug(f"Costs: a model is left out: {error}")

    def _load(self, config: QuantConfig) -> None:
        bench = self._bench
        proto = bench.build(config)
        model = ProfiledModel(proto, bench.sessions, bench.base_dir)
        shares = None
        if model.graph is not None:
            shares = attribute(proto.graph, model.graph, bench.outputs, bench.neighbours)
            model.graph = None
        self._profiled.append(_Profiled(state_of(config), model, shares))

    def _loads(self, config: QuantConfig) -> bool:
        try:
            self._bench.load(config)
        except Exception:
            return False
        return True

    def add(self, number: int, config: QuantConfig) -> None:
        """Load a model that is to be measured as a whole, if it can be loaded."""
        try:
            self._plain[number] = self._bench.load(config)
        except Exception as error:
            _logger.debug(f"Costs: a model is left out of the comparison: {error}")

    def run(self, seconds: float) -> tuple[list[Observed], dict[int, Timing]]:
        """Run the models in turn, first with and then without a profile."""
        feed, loaded = self._bench.feed, time.perf_counter()
        most = max(len(p.shares or ()) for p in self._profiled)
        time_interleaved(
            [partial(p.model.run, feed) for p in self._profiled],
            rounds=max(_FEWEST_RUNS, min(_MOST_PROFILED, _MOST_EVENTS // max(1, most))),
            warmup=_PROFILE_WARMUP,
            seconds=_PROFILED * seconds,
            fewest=_FEWEST_RUNS,
        )
        profiles = [p.model.finish(skip=_PROFILE_WARMUP) for p in self._profiled]
        profiled = time.perf_counter()
        runs = [partial(p.model.session.run, None, feed) for p in self._profiled]
        runs += [partial(session.run, None, feed) for session in self._plain.values()]
        timings = time_interleaved(
            runs,
            rounds=_MOST_RUNS,
            warmup=_WARMUP,
            seconds=(1 - _PROFILED) * seconds,
            fewest=_FEWEST_RUNS,
            clock=clock_of(self._bench.sessions),
        )
        done = time.perf_counter()
        observed = [
            _observed(p, profile.nodes, timing)
            for p, profile, timing in zip(
                self._profiled, profiles, timings[: len(profiles)], strict=True
            )
        ]
        _logger.debug(
            f"Costs: {len(observed)} models profiled and {len(self._plain)} more measured: "
            f"building and loading {loaded - self._start:.2f} s, "
            f"{len(next(iter(profiles[0].runs.values()), ()))} profiled runs each "
            f"{profiled - loaded:.2f} s, {len(timings[0].runs)} runs each {done - profiled:.2f} s."
        )
        return observed, dict(zip(self._plain, timings[len(profiles) :], strict=True))


def _observed(profiled: _Profiled, nodes: Mapping[str, float], timing: Timing) -> Observed:
    parts: dict[tuple[str, str], float] = {}
    counts: dict[tuple[str, str], float] = {}
    for name, duration in nodes.items():
        if profiled.shares is None:
            shares: Sequence[Share] = [Share("", OWN)]
        else:
            # Nodes inside of a loop are not in the graph: the loop has their time as well.
            shares = profiled.shares.get(name, ())
        for share in shares:
            key = share.op, share.part
            parts[key] = parts.get(key, 0.0) + share.share * duration
            counts[key] = counts.get(key, 0.0) + share.share
    return Observed(profiled.state, parts, counts, timing)


def without(config: QuantConfig, refused: set[tuple[str, str]]) -> QuantConfig:
    """A configuration with FP32 for the ops that the runtime does not load as they are there."""
    found = [op for op, o in config.ops.items() if (op, option_class(o)) in refused]
    return config.with_fallback(*found)


def find_refused(
    config: QuantConfig, loads: Callable[[QuantConfig], bool]
) -> set[tuple[str, str]]:
    """Find the ops because of which a model does not load, by halves.

    Args:
        config:
            The configuration of the model.
        loads:
            Whether the model of a configuration loads.

    Returns:
        The ops and their classes. Those of a set of which only all together do not load are all
        in it, and so are those that are left when too many models have been loaded.
    """
    left = _MOST_SEARCHED
    found: set[tuple[str, str]] = set()
    waiting = [config.quantized_ops]
    while waiting:
        ops = waiting.pop()
        halves = [ops[: len(ops) // 2], ops[len(ops) // 2 :]] if len(ops) > 1 and left > 0 else []
        failing = []
        for half in halves:
            left -= 1
            others = [op for op in config.quantized_ops if op not in half]
            if not loads(config.with_fallback(*others)):
                failing.append(half)
        if failing:
            waiting += failing
        else:
            found.update((op, option_class(config.ops[op])) for op in ops)
    return found
