"""Sensitivity by error: how far the quantization of an op moves its own output."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from copy import copy
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import Shown
from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import quantized_copies
from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import SideBySide
from optuna_quant.backends.sensitivity.asked_ops import quantized_ops
from optuna_quant.backends.sensitivity.relative_error import RelativeError
from optuna_quant.backends.sensitivity.sampled import SampledSensitivity
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from typing import Self

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import QuantizedCopies
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp

    Build = Callable[[QuantConfig], QuantizedModel]
    GraphOf = Callable[[QuantConfig], tuple[Graph, Mapping[str, StaticOp]]]


_logger = get_logger(__name__)

# Graphs that recipes have made, each with its weights.
_MOST_SIBLINGS = 4

_CHANNEL_AXES = {
    "Attention": -1,
    "Conv": 1,
    "ConvTranspose": 1,
    "EmbedLayerNormalization": -1,
    "FusedConv": 1,
    "Gemm": -1,
    "LSTM": -1,
}


class MSESensitivity(SampledSensitivity):
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
    at most 256 MiB, where the model allows it. The FP32 graph runs once for all configurations.

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
        super().__init__(samples=samples)
        self._graph_of = graph_of
        self._siblings: dict[int, Self] = {}
        self._build = build
        self._set_graph(graph, static)
        self._data = data
        self._sessions = sessions

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
            quantized = quantized_ops(config, scores)
            model = self._build(config) if quantized else None
            key = ("" if model is None else model.fingerprint, *quantized)
            found.append(same.setdefault(key, scores))  # Filled in below.
            if model is not None and found[-1] is scores:
                tensors = {op: self._shown_by(op, config) for op in quantized}
                # All ops of the candidate are in the graph.
                copies = quantized_copies(self._graph, model.compact, tensors)
                pairs.append((scores, tensors, copies))
        errors = self._errors([copies for _, _, copies in pairs])
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

    def _parts_of_weights(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        sibling = self._for(config)
        tensors = {op: sibling._shown_by(op, config) for op in ops}
        copies = quantized_copies(
            sibling._graph, self._build(config).compact, tensors, with_weights_alone=True
        )
        (errors,) = sibling._errors([copies])
        found = dict.fromkeys(copies.without_weights, 0.0)
        for op, shown in tensors.items():
            whole = _mean_error(errors, [Shown(op, name) for name in shown])
            alone = _mean_error(errors, [Shown(op, name, weights_alone=True) for name in shown])
            if whole and alone is not None:
                found[op] = min(1.0, alone / whole)
        return found

    def with_samples(self, samples: int) -> Self:
        """As that of the base class, with graphs of its own."""
        found = super().with_samples(samples)
        found._siblings = {}
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

    def _errors(self, copies: Sequence[QuantizedCopies]) -> list[dict[Shown, float]]:
        """The error of each tensor that copies show; what cannot be told is missing."""
        found = [{s: RelativeError(self._channel_axis(s.op)) for s in c.tensors} for c in copies]
        if any(found):
            runs = SideBySide(self._graph, copies, self._sessions)
            for feed in runs.feeds(self._data, self._samples):
                exact = runs.exact(feed)
                for place, of_one in enumerate(found):
                    for shown, values in runs.copied(place, feed, exact).items():
                        of_one[shown].update(exact[shown.tensor], values)
        errors = [
            {key: (error.whole + error.by_channel) / 2 for key, error in of_one.items()}
            for of_one in found
        ]
        return [{k: error for k, error in each.items() if np.isfinite(error)} for each in errors]


def _mean_error(errors: Mapping[Shown, float], wanted: Sequence[Shown]) -> float | None:
    """The mean of the errors that are known; None if none is."""
    known = [errors[shown] for shown in wanted if shown in errors]
    return float(np.mean(known)) if known else None
