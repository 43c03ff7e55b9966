"""What the backend tells of its model: ops, blocks, the graph, and what cannot be quantized."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.blocks import find_blocks
from optuna_quant.backends.onnxruntime.model.dependence import graph_nodes
from optuna_quant.backends.onnxruntime.model.dependence import outputs_behind
from optuna_quant.backends.onnxruntime.topic import BackendTopic
from optuna_quant.space.left_out import left_out_frame


if TYPE_CHECKING:
    import pandas as pd

    from optuna_quant.backends.base import GraphNode
    from optuna_quant.backends.base import MissingRange
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import FloatWeights
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.space import TuningSpace


class DescribingBackend(BackendTopic):
    """Describes the model.

    See :class:`~optuna_quant.backends.base.NamesOriginal`,
    :class:`~optuna_quant.backends.base.TellsMissingRanges`,
    :class:`~optuna_quant.backends.base.WeighsFloats`,
    :class:`~optuna_quant.backends.base.TracesOutputs`,
    :class:`~optuna_quant.backends.base.HasBlocks` and
    :class:`~optuna_quant.backends.base.HasGraph`.
    """

    def capability(self) -> Capability:
        """What can be done with each op of the model.

        The product of two activations has the op type ``MatMulActivations``, to distinguish it
        from a ``MatMul`` with a weight. Ops that only pass values on (Reshape, MaxPool, a Relu
        behind a Conv, ...) follow the op before them and are not listed.
        """
        with self._lock:
            return self._parts.offered.capability

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized: ``"FP32"`` unless it is quantized."""
        with self._lock:
            return self._parts.offered.original

    def left_out(self, space: TuningSpace | None = None) -> pd.DataFrame:
        """Which ops are not in the tuning space, and why.

        These are the ops of a type that could be quantized, in subgraphs too, and those of other
        types with large weights.

        Args:
            space:
                The tuning space; by default the one that :meth:`tuning_space` gives without
                arguments, or an empty one if there is none.

        Returns:
            A data frame in model order with the columns ``op``, ``op_type``, ``weight_bytes``
            (the size of its floating-point constants), ``reason`` and ``remedy`` (what to do so
            that it is not left out; empty if there is nothing).
        """
        with self._lock:
            return left_out_frame(self._parts.offered.left_out(space))

    def ops_left_out(self, space: TuningSpace) -> tuple[LeftOut, ...]:
        """The same of a tuning space, as values."""
        with self._lock:
            return tuple(self._parts.offered.left_out(space))

    def missing_ranges(self) -> Mapping[str, MissingRange]:
        """Why ops stay in floats in static mode, as far as models were built, by op."""
        with self._lock:
            return self._parts.missing_ranges.found

    def other_recipes(self) -> tuple[str, ...]:
        """The recipes that may lower errors in this model, and that were not asked for."""
        with self._lock:
            return self._parts.recipes.others

    def float_weights(self, config: QuantConfig) -> FloatWeights:
        """The weights that a configuration leaves in floats, and what would quantize them."""
        with self._lock:
            return self._parts.offered.float_weights(config)

    def outputs_behind(self, ops: Sequence[str]) -> tuple[str, ...]:
        """The model's outputs whose values can change when these ops are quantized."""
        with self._lock:
            return outputs_behind(self._parts.model.graph, ops)

    def blocks(self) -> tuple[Block, ...]:
        """The parts of the model that repeat, such as transformer layers, by its structure.

        See :func:`~optuna_quant.backends.onnxruntime.model.blocks.find_blocks`.
        """
        with self._lock:
            return find_blocks(self._parts.model.graph)

    def graph_nodes(self) -> tuple[GraphNode, ...]:
        """The nodes of the model's main graph, and which of them each reads."""
        with self._lock:
            return graph_nodes(self._parts.model.graph)
