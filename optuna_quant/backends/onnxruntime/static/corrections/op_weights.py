"""The weight and the bias of an op in static mode, as its integer kernel gets them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np

from optuna_quant.backends.onnxruntime.calibration.accumulator import NO_STEPS
from optuna_quant.backends.onnxruntime.calibration.accumulator import fit_accumulator
from optuna_quant.backends.onnxruntime.calibration.accumulator import steps_of
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.static.corrections.bias import conv_shift
from optuna_quant.backends.onnxruntime.static.corrections.bias import conv_transpose_shift
from optuna_quant.backends.onnxruntime.static.corrections.bias import product_shift
from optuna_quant.backends.onnxruntime.static.corrections.weight import corrected_weight


if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight
    from optuna_quant.backends.onnxruntime.model.weights import WeightStore
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions
    from optuna_quant.backends.ranges.qparams import Params
    from optuna_quant.space.config import TensorConfig


FindMeans: TypeAlias = Callable[[str, int], "NDArray[np.float64] | None"]
"""Gives the means of a tensor along an axis over the calibration data; None if it has none."""


@dataclass(frozen=True, eq=False)
class OpWeight:
    """The weight and the bias of one op.

    Args:
        weight:
            The weight.
        kind:
            What tells this form of the weight from others of it.
        bias:
            The bias in floats, a value for each output; None if the op has none and needs none.
        bias_kind:
            What tells this form of the bias from others of it.
    """

    weight: QuantizedWeight
    kind: Hashable
    bias: NDArray[np.float64] | None = None
    bias_kind: Hashable = None


class OpWeights:
    """Gives the weights and biases of ops, corrected where the options ask for it.

    Args:
        graph:
            The graph.
        weights:
            Gives the quantized weights.
        options:
            Says what is corrected.
        means:
            Gives the means of ops' inputs; None if biases are not corrected.
    """

    def __init__(
        self,
        graph: Graph,
        weights: WeightStore,
        options: WriteOptions,
        means: FindMeans | None,
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._options = options
        self._means = means

    def of(
        self,
        node: onnx.NodeProto,
        op: StaticOp,
        config: TensorConfig,
        factors: tuple[float, float],
        activation: tuple[str, Params] | None,
    ) -> OpWeight:
        """The weight and the bias of an op.

        Args:
            node:
                The node as it is written, before its weight and bias are replaced.
            op:
                The op.
            config:
                How its weight is quantized.
            factors:
                What the weight and the bias are multiplied with.
            activation:
                The tensor that the op reads, and how it is quantized; None if it reads rows of
                the weight.
        """
        assert op.weight is not None
        name = node.input[op.weight.position]
        axis = op.weight.axis if config.granularity == "per_channel" else None
        alpha, beta = factors
        weight = self._weights.get(name, config, axis, factor=alpha)
        kind: Hashable = (config, axis, alpha)
        if activation is None:
            return OpWeight(weight, kind)
        tensor, params = activation
        load = partial(self._weights.array, name, factor=alpha)
        reduced = op.reduced_axes(weight.values.ndim)
        if self._options.correct_weights:
            key = ("corrected", name, kind, reduced)
            original = weight
            weight = self._weights.cached(key, lambda: corrected_weight(load(), original, reduced))
            kind = kind, "corrected"
        own = self._bias(node, op, weight, beta)
        # Sums of 16-bit products would not fit: what takes such activations has wider ones.
        is_narrow = np.iinfo(params.dtype).bits == 8
        fit = partial(
            fit_accumulator,
            load=load,
            reduced=reduced,
            steps=steps_of(params.zero_point, params.dtype) if is_narrow else NO_STEPS,
            input_scale=params.scale,
        )
        bias, bias_kind = self._corrected(own, node, op, tensor, weight, load)
        # Behind a product that takes no bias the correction is added in floats.
        added = bias if takes_bias(node) else own
        fitted = fit(weight, bias=added if self._options.integer_biases else None)
        if fitted is not weight:
            weight, kind = fitted, (kind, fitted.scale.tobytes())
            bias, bias_kind = self._corrected(own, node, op, tensor, weight, load)
        return OpWeight(weight, kind, bias, (beta, bias_kind))

    def _bias(
        self, node: onnx.NodeProto, op: StaticOp, weight: QuantizedWeight, beta: float
    ) -> NDArray[np.float64] | None:
        """The bias that an op has, a value for each output."""
        assert op.weight is not None
        if op.bias is None:
            return None
        channels = weight.values.shape[0 if op.weight.axis is None else op.weight.axis]
        if op.op_type == "ConvTranspose":
            channels = self._graph.initializers[node.input[op.bias]].dims[0]
        bias = self._graph.array(node.input[op.bias]).astype(np.float64) * beta
        return np.broadcast_to(bias.reshape(-1), (channels,))

    def _corrected(
        self,
        bias: NDArray[np.float64] | None,
        node: onnx.NodeProto,
        op: StaticOp,
        tensor: str,
        weight: QuantizedWeight,
        load: Callable[[], NDArray[np.float32]],
    ) -> tuple[NDArray[np.float64] | None, Hashable]:
        """A bias that takes back what a quantized weight adds to the mean, and what tells it."""
        axis = means_axis(node, op, self._graph)
        if self._means is None or axis is None or not self._options.correct_biases:
            return bias, None
        means = self._means(tensor, axis)
        if means is None:
            return bias, None
        shift = _shift(node, load().astype(np.float64) - weight.to_floats(), means)
        bias = shift if bias is None else bias + shift
        return bias, bias.tobytes()


def takes_bias(node: onnx.NodeProto) -> bool:
    """Whether a product can have a bias of its own, as its third input."""
    return node.op_type in ("Conv", "ConvTranspose", "Gemm")


def means_axis(node: onnx.NodeProto, op: StaticOp, graph: Graph) -> int | None:
    """The axis of the inputs of an op, by whose means its bias is corrected; None if it is not.

    It is not where the weight stands on the left of a product or is no matrix there: the outputs
    have no channels to which a bias could be added.
    """
    if op.weight is None or not op.activations or op.rule.layer:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1
    dims = graph.initializers[node.input[op.weight.position]].dims
    if op.weight.position != 1 or len(dims) != 2:
        return None
    return 0 if node_attributes(node).get("transA", 0) else -1


def bias_inputs(ops: Iterable[StaticOp], graph: Graph) -> set[tuple[str, int]]:
    """The tensors whose means the biases of ops are corrected by, each with the axis of those."""
    found = set()
    for op in ops:
        node = graph.nodes[op.index]
        axis = means_axis(node, op, graph)
        if axis is not None:
            found.add((node.input[op.activations[0]], axis))
    return found


def _shift(
    node: onnx.NodeProto, error: NDArray[np.float64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    attributes = node_attributes(node)
    if node.op_type == "Conv":
        return conv_shift(error, means, groups=attributes.get("group", 1))
    if node.op_type == "ConvTranspose":
        strides = attributes.get("strides", ())
        groups = attributes.get("group", 1)
        return conv_transpose_shift(error, means, groups=groups, strides=strides)
    return product_shift(error.T if attributes.get("transB", 0) else error, means)
