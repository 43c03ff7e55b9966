"""Which axes of a weight belong to the channels that an op reads, and to those that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph


@dataclass(frozen=True)
class WeightLayout:
    """The channels of a weight.

    In groups (of a grouped convolution; one otherwise) each output channel of a group sums over
    the input channels of that group.

    Args:
        position:
            Which input of the node it is.
        bias:
            Which input its bias is; None if it has none.
        groups:
            The number of groups.
        input_axis:
            The axis of the input channels.
        output_axis:
            The axis of the output channels.
        split_axis:
            Which of the two counts over all groups; the other one counts within a group.
        axis:
            The channel axis of the activation that it reads and of what it gives, from the end.
    """

    position: int
    bias: int | None
    groups: int
    input_axis: int
    output_axis: int
    split_axis: int
    axis: int

    def input_maxima(self, weight: NDArray[Any]) -> NDArray[np.float64]:
        """The largest magnitude of the weights of each input channel."""
        return self._maxima(weight, self.input_axis)

    def output_maxima(self, weight: NDArray[Any]) -> NDArray[np.float64]:
        """The largest magnitude of the weights of each output channel."""
        return self._maxima(weight, self.output_axis)

    def scaled_inputs(
        self, weight: NDArray[Any], factors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The weight with each input channel multiplied by its factor."""
        return self._scaled(weight, factors, self.input_axis)

    def scaled_outputs(
        self, weight: NDArray[Any], factors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The weight with each output channel multiplied by its factor."""
        return self._scaled(weight, factors, self.output_axis)

    def _maxima(self, weight: NDArray[Any], axis: int) -> NDArray[np.float64]:
        magnitudes = np.abs(self._by_group(weight))
        others = tuple(i for i in range(magnitudes.ndim) if i not in (0, axis + 1))
        found = magnitudes.max(axis=others, initial=0.0)
        return np.asarray(found, dtype=np.float64).reshape(-1)

    def _scaled(
        self, weight: NDArray[Any], factors: NDArray[np.float64], axis: int
    ) -> NDArray[np.float64]:
        by_group = self._by_group(weight).astype(np.float64)
        shape = [1] * by_group.ndim
        shape[0], shape[axis + 1] = self.groups, -1
        scaled = by_group * factors.reshape(shape)
        return np.moveaxis(scaled, 0, self.split_axis).reshape(weight.shape)

    def _by_group(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The weight with an axis of groups in front."""
        shape = list(weight.shape)
        shape[self.split_axis : self.split_axis + 1] = [self.groups, -1]
        return np.moveaxis(weight.reshape(shape), self.split_axis, 0)


def weight_layout(node: onnx.NodeProto, graph: Graph) -> WeightLayout | None:
    """The layout of the weight of a Conv, ConvTranspose, Gemm or MatMul.

    Args:
        node:
            The node.
        graph:
            Its graph.

    Returns:
        The layout; None if it is none of these with a constant weight behind its activation.
    """
    if node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return None
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    if not graph.is_weight(node.input[1]) or graph.is_constant(node.input[0]):
        return None
    bias = 2 if len(node.input) > 2 and node.input[2] else None
    if bias is not None and not graph.is_weight(node.input[2]):
        return None
    rank = len(graph.initializers[node.input[1]].dims)
    attributes = node_attributes(node)
    if node.op_type in ("Conv", "ConvTranspose"):
        inputs, outputs = (1, 0) if node.op_type == "Conv" else (0, 1)
        groups = int(attributes.get("group", 1))
        return WeightLayout(1, bias, groups, inputs, outputs, 0, 1 - rank) if rank > 1 else None
    if rank != 2:
        return None
    if node.op_type == "MatMul":
        return WeightLayout(1, None, 1, 0, 1, 0, -1)
    if attributes.get("transA", 0):
        return None
    inputs = 1 if attributes.get("transB", 0) else 0
    return WeightLayout(1, bias, 1, inputs, 1 - inputs, 0, -1)
