"""Sensitivity by error: how far quantization moves each op's output, or the model's.

Both are callables ``(config, ops) -> {op: score}``, higher for an op that hurts more. They need no
labels and evaluate nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from copy import copy
from threading import Lock
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.counts import check_positive
from optuna_quant.backends.onnxruntime.model.content import tapped_session
from optuna_quant.backends.onnxruntime.sensitivity.asked_ops import check_ops
from optuna_quant.backends.onnxruntime.sensitivity.relative_error import RelativeError
from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import Shown
from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import side_by_side
from optuna_quant.data.outputs import choose_outputs
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from typing import Any
    from typing import Self

    from numpy.typing import NDArray
    import onnxruntime

    from optuna_quant.backends.onnxruntime.calibration.data import CalibrationData
    from optuna_quant.backends.onnxruntime.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
    from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import SideBySide
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp

    Build = Callable[[QuantConfig], QuantizedModel]
    GraphOf = Callable[[QuantConfig], tuple[Graph, Mapping[str, StaticOp]]]


_logger = get_logger(__name__)

# Tensors that are looked at together may take so much; one sample is run even if it takes more.
_PIECE_BYTES = 1 << 28
_PIECE_SAMPLES = 32
# Graphs that recipes have made, each with its weights.
_MOST_SIBLINGS = 4

# What part weights have in an op's error is told on this part of the samples, of the ops that make
# up more than this part of all error.
_SAMPLES_OF_WEIGHTS = 0.15
_LEAST_PART = 0.005

# Ops whose single errors make up so much of a model's error are ranked by them.
_EXPLAINED = 0.5

_CHANNEL_AXES = {
    "Attention": -1,
    "Conv": 1,
    "ConvTranspose": 1,
    "EmbedLayerNormalization": -1,
    "FusedConv": 1,
    "Gemm": -1,
    "LSTM": -1,
}


class MSESensitivity:
    """The error that the quantization of each op brings to its output.

    One pass over the samples runs the FP32 graph and, beside it, a quantized copy of each op as
    the configuration has it, with the pairs on its inputs and on its output. Each copy reads the
    FP32 values, so its score is its own contribution; the error that piles up along a quantized
    model ranks the last ops highest, whatever they did. An op in fallback scores zero.

    The score is the mean squared error over the variance of the FP32 output, averaged with the
    same taken channel by channel (each at most 1) where an op has output channels: with one grid
    for all channels the error of the small ones, on which the next layer may rest, does not show
    in the whole. No error scores zero, also where the output is constant.

    Where the op is quantized together with an activation function behind it, the output of that is
    looked at. Everything is computed in floats, as the Q/DQ pairs say; what the runtime makes of
    them (fused integer kernels) is not looked at. An op whose error cannot be seen scores zero.

    Only sums are kept from batch to batch; batches are cut such that the tensors looked at take
    at most 256 MiB, where the model allows it.

    Args:
        build:
            Builds the model of a configuration.
        graph:
            The FP32 graph.
        static:
            The ops that have a static mode, by name.
        data:
            The samples.
        sessions:
            Says with which providers and options the model runs.
        samples:
            How many samples are used, from the start of the data.
        graph_of:
            The graph that a configuration is built from, and the ops of it that have a static
            mode, where recipes make another one of ``graph``.

    Raises:
        ValueError:
            If ``samples`` is not a positive number.
    """

    what = "the error of their outputs"

    def __init__(
        self,
        build: Build,
        graph: Graph,
        static: Mapping[str, StaticOp],
        data: CalibrationData,
        sessions: SessionMaker,
        *,
        samples: int = 256,
        graph_of: GraphOf | None = None,
    ) -> None:
        check_positive("samples", samples)
        self._graph_of = graph_of
        self._siblings: dict[int, Self] = {}
        self._build = build
        self._set_graph(graph, static)
        self._data = data
        self._sessions = sessions
        self._samples = samples
        self.key = f"samples={samples}"

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """Score ops of a configuration.

        Args:
            config:
                The configuration.
            ops:
                Their names.

        Raises:
            ValueError:
                If an op is not in the configuration.
        """
        return self.score_options([config], ops)[0]

    def score_options(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> list[dict[str, float]]:
        """Score ops in several options each: one configuration after the other.

        Args:
            configs:
                The configurations.
            ops:
                The names of the ops.

        Returns:
            The scores of each configuration, as calling this object gives them.

        Raises:
            ValueError:
                If an op is not in a configuration.
        """
        found: list[dict[str, float]] = [{} for _ in configs]
        places: dict[int, list[int]] = {}
        siblings = [self._for(config) for config in configs]
        for i, sibling in enumerate(siblings):
            places.setdefault(id(sibling), []).append(i)
        for same in places.values():
            scored = siblings[same[0]]._score_options([configs[i] for i in same], ops)
            for i, scores in zip(same, scored, strict=True):
                found[i] = scores
        return found

    def _for(self, config: QuantConfig) -> Self:
        """What scores a configuration: the same, in the graph that it is built from."""
        if self._graph_of is None:
            return self
        graph, static = self._graph_of(config)
        if graph is self._graph:
            return self
        if id(graph) not in self._siblings:
            found = copy(self)
            found._set_graph(graph, static)
            if len(self._siblings) == _MOST_SIBLINGS:
                del self._siblings[next(iter(self._siblings))]
            self._siblings[id(graph)] = found
        return self._siblings[id(graph)]

    def _set_graph(self, graph: Graph, static: Mapping[str, StaticOp]) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._static = static

    def _score_options(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> list[dict[str, float]]:
        """:meth:`score_options` where all are built from this graph."""
        started = time.perf_counter()
        found: list[dict[str, float]] = []
        pairs = []
        same: dict[tuple[str, ...], dict[str, float]] = {}
        for config in configs:
            scores = dict.fromkeys(ops, 0.0)
            quantized = _quantized(config, scores)
            model = self._build(config) if quantized else None
            key = ("" if model is None else model.fingerprint, *quantized)
            found.append(same.setdefault(key, scores))  # Filled in below.
            if model is not None and found[-1] is scores:
                candidate = model.proto  # of which all ops are in the graph
                tensors = {op: self._shown_by(op, config) for op in quantized}
                pairs.append((scores, tensors, side_by_side(self._graph, candidate, tensors)))
        errors = self._errors([pair for _, _, pair in pairs])
        for (scores, tensors, _), of_pair in zip(pairs, errors, strict=True):
            for op, shown in tensors.items():
                score = _mean_error(of_pair, [Shown(op, name) for name in shown])
                if score is not None:
                    scores[op] = score
                else:
                    _logger.debug(f"The error of op {op!r} cannot be measured; its score is zero.")
        _logger.info(
            f"Scored {len(ops)} ops by {self.what} in {time.perf_counter() - started:.1f} s."
        )
        return [dict(scores) for scores in found]

    def score_with_weights(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Score ops in several options each, and find how much of it comes from their weights.

        That is the score where only what is constant is quantized and the activations are not,
        over that where all is, both on a few of the samples.

        Args:
            configs:
                The configurations.
            ops:
                The names of the ops.

        Returns:
            The scores of each configuration; and, for the ops that matter of those that the first
            one has in static mode, the part of their error that comes from their weights, from 0
            to 1. An op for which this cannot be determined is missing.

        Raises:
            ValueError:
                If an op is not in a configuration.
        """
        scores = self.score_options(configs, ops)
        return scores, self._for(configs[0])._parts_of_weights(configs[0], scores[0])

    def _parts_of_weights(
        self, config: QuantConfig, scores: Mapping[str, float]
    ) -> dict[str, float]:
        least = _LEAST_PART * sum(scores.values())
        tensors = {
            op: self._shown_by(op, config)
            for op, score in scores.items()
            if config.ops[op].mode == "static" and score > least
        }
        if not tensors:
            return {}
        pair = side_by_side(
            self._graph, self._build(config).proto, tensors, with_weights_alone=True
        )
        (errors,) = self.with_samples(self._samples_of_weights)._errors([pair])
        found = dict.fromkeys(pair.without_weights, 0.0)
        for op, shown in tensors.items():
            whole = _mean_error(errors, [Shown(op, name) for name in shown])
            alone = _mean_error(errors, [Shown(op, name, weights_alone=True) for name in shown])
            if whole and alone is not None:
                found[op] = min(1.0, alone / whole)
        return found

    @property
    def _samples_of_weights(self) -> int:
        return max(1, round(_SAMPLES_OF_WEIGHTS * self._samples))

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        """How many samples are run through models to score this number of configurations.

        Args:
            configs:
                The number of configurations.
            with_weights:
                Whether the part that comes from the weights is found as well.
        """
        more = self._samples_of_weights if with_weights else 0
        return float(self._samples * configs + more)

    def with_samples(self, samples: int) -> Self:
        """The same sensitivity with at most this number of samples."""
        found = copy(self)
        found._siblings = {}
        found._samples = min(self._samples, samples)
        return found

    def _shown_by(self, op: str, config: QuantConfig) -> list[str]:
        """The tensors that show the result of an op."""
        op_config, static = config.ops[op], self._static.get(op)
        if op_config.mode == "static" and static is not None and static.rule.owns_output:
            assert op_config.activation is not None
            return [static.output(self._nodes[op], op_config.activation.scheme)]
        added = self._bias_of(op, config)
        if added is not None:
            return [added]
        return [name for name in self._nodes[op].output if name]

    def _bias_of(self, op: str, config: QuantConfig) -> str | None:
        """The sum of an op's result and a bias, where the op is written as both in one."""
        static = self._static.get(op)
        behind = None if static is None else static.matmul_add
        if config.ops[op].mode != "static" or behind is None or behind.gemm is None:
            return None
        added = config.ops.get(self._graph.nodes[behind.add].name)
        if behind.gemm.bias is None or (added is not None and added.mode == "static"):
            return None
        return behind.gemm.result

    def _channel_axis(self, op: str) -> int | None:
        node = self._nodes[op]
        if node.op_type == "MatMul":
            constant = [self._graph.is_constant(name) for name in node.input]
            return None if not any(constant) else -1 if constant[1] else -2
        return _CHANNEL_AXES.get(node.op_type)

    def _errors(self, pairs: Sequence[SideBySide]) -> list[dict[Shown, float]]:
        """The error of each tensor of each pair; what cannot be told is missing."""
        return [self._errors_of(pair) if pair.copies else {} for pair in pairs]

    def _errors_of(self, pair: SideBySide) -> dict[Shown, float]:
        session = self._tapped(pair)
        found = {shown: RelativeError(self._channel_axis(shown.op)) for shown in pair.copies}
        for feed in self._feeds(session, pair.tensors):
            values = dict(zip(pair.tensors, session.run(pair.tensors, feed), strict=True))
            for shown, name in pair.copies.items():
                found[shown].update(values[shown.tensor], values.pop(name))
        errors = {key: (error.whole + error.by_channel) / 2 for key, error in found.items()}
        return {key: error for key, error in errors.items() if np.isfinite(error)}

    def _tapped(self, pair: SideBySide) -> onnxruntime.InferenceSession:
        with self._sessions.lock:
            return tapped_session(
                pair.model,
                pair.tensors,
                self._graph.base_dir,
                providers=self._sessions.providers,
                session_options=self._sessions.options,
            )

    def _feeds(
        self, session: onnxruntime.InferenceSession, tensors: Sequence[str]
    ) -> Iterator[Feed]:
        """The samples, in pieces that are small enough."""
        probe = next(self._data.pieces([1]))
        size = sum(value.nbytes for value in session.run(tensors, probe.feed))
        step = int(np.clip(_PIECE_BYTES * probe.samples // max(size, 1), 1, _PIECE_SAMPLES))
        for piece in self._data.pieces([*range(step, self._samples, step), self._samples]):
            yield piece.feed


class OutputSensitivity:
    """How far the quantization of each op moves the model's outputs.

    An error is the mean squared difference to the FP32 model's outputs over their variance, summed
    over the outputs, on a few batches. The score of an op is the error that it makes alone, with
    the others in FP32. Where these errors together make up less than half of that of the
    configuration, ops matter together; then the score is how much the error falls when the op
    falls back too, which may be less than nothing.

    Both views agree where errors add up. Where they exceed what can be seen in the outputs, as in
    a model that is far off, the second is noise, and it costs a model per op each time, the first
    one only once. Ops in fallback score zero.

    FP32 outputs are computed once, models that are the same once, and all are built from the
    calibration statistics that the backend has. Labels among the outputs (and everything that is
    not floating-point) count by how many are wrong.

    Args:
        build:
            Builds the model of a configuration.
        data:
            The samples.
        batches:
            How many batches are used, from the start of the data.
        batch_size:
            The most samples in a batch, where the model allows to cut the data.
        outputs:
            The names of the outputs that are looked at; None for all.

    Raises:
        ValueError:
            If ``batches`` or ``batch_size`` is not a positive number.
    """

    def __init__(
        self,
        build: Build,
        data: CalibrationData,
        *,
        batches: int = 2,
        batch_size: int = 32,
        outputs: Sequence[str] | None = None,
    ) -> None:
        check_positive("batches", batches)
        check_positive("batch_size", batch_size)
        self._build = build
        self._data = data
        self._batch_size = batch_size
        self._outputs = None if outputs is None else tuple(outputs)
        self.key = f"batches={batches}, batch_size={batch_size}"
        if self._outputs is not None:
            self.key += f", outputs={list(self._outputs)}"
        self._sizes = range(batch_size, batch_size * batches + 1, batch_size)
        self._lock = Lock()
        self._reference: list[tuple[Feed, dict[str, NDArray[Any]]]] = []
        self._by_config: dict[str, float] = {}
        self._by_model: dict[str, float] = {}

    def with_batches(self, batches: int) -> OutputSensitivity:
        """The same sensitivity with another number of batches.

        Args:
            batches:
                How many batches are used, from the start of the data.
        """
        return OutputSensitivity(
            self._build,
            self._data,
            batches=batches,
            batch_size=self._batch_size,
            outputs=self._outputs,
        )

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """Score ops of a configuration.

        Args:
            config:
                The configuration.
            ops:
                Their names.

        Raises:
            ValueError:
                If an op is not in the configuration, or the model has no output that is an array.
        """
        started = time.perf_counter()
        scores = dict.fromkeys(ops, 0.0)
        quantized = _quantized(config, scores)
        with self._lock:
            runs = len(self._by_model)
            error = self._error(config) if quantized else 0.0
            for op in quantized:
                scores[op] = self._error(
                    QuantConfig({op: config.ops[op]}, config.recipes, config.calibration_size)
                )
            if sum(scores.values()) < _EXPLAINED * error:
                for op in quantized:
                    scores[op] = error - self._error(config.with_fallback(op))
            runs = len(self._by_model) - runs
        _logger.info(
            f"Scored {len(scores)} ops by the error of the model's outputs, {error:.3g}, with "
            f"{runs} models in {time.perf_counter() - started:.1f} s."
        )
        return scores

    def _error(self, config: QuantConfig) -> float:
        if config.key not in self._by_config:
            model = self._build(config)
            if model.fingerprint not in self._by_model:
                self._by_model[model.fingerprint] = self._run(model)
            self._by_config[config.key] = self._by_model[model.fingerprint]
        return self._by_config[config.key]

    def _run(self, model: QuantizedModel) -> float:
        if not self._reference:
            self._reference = list(self._exact())
        errors = {name: RelativeError() for name in self._reference[0][1]}
        for feed, exact in self._reference:
            actual = model.run(feed, list(exact))
            for (name, values), output in zip(exact.items(), actual, strict=True):
                errors[name].update(values, output)
        return sum(error.whole for error in errors.values())

    def _exact(self) -> Iterator[tuple[Feed, dict[str, NDArray[Any]]]]:
        model = self._build(QuantConfig({}))
        names = list(model.outputs)
        if self._outputs is not None:
            names = list(choose_outputs(self._outputs, names))
        for piece in self._data.pieces(self._sizes):
            outputs = dict(zip(names, model.run(piece.feed, names), strict=True))
            arrays = {name: v for name, v in outputs.items() if isinstance(v, np.ndarray)}
            if not arrays:
                raise ValueError(f"None of the model's outputs {names} is an array.")
            yield piece.feed, arrays


def _mean_error(errors: Mapping[Shown, float], wanted: Sequence[Shown]) -> float | None:
    """The mean of the errors that are known; None if none is."""
    known = [errors[shown] for shown in wanted if shown in errors]
    return float(np.mean(known)) if known else None


def _quantized(config: QuantConfig, ops: Mapping[str, float]) -> list[str]:
    """Those of the ops that are quantized."""
    check_ops(config, ops)
    return [op for op in ops if config.ops[op].is_quantized]
