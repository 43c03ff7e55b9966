"""The alpha with which a quantized product has the least error on the calibration data."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.ranges.ranges import scale_zero_point


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.recipes.scaling.groups import Weighted
    from optuna_quant.backends.onnxruntime.recipes.smooth_quant.statistics import ChannelStatistics


_COMBINED: Mapping[str, Callable[[list[float]], float]] = MappingProxyType(
    {"mean": lambda errors: sum(errors) / len(errors), "min": min, "max": max}
)


class QuantizedProduct:
    """One op by itself, which tells how far off its product is in 8 bits.

    Activations are quantized per tensor (uint8, asymmetric), weights per output channel (int8,
    symmetric), both over their whole ranges, as the default option of an op is.

    Args:
        graph:
            The graph.
        op:
            The op.
        weight:
            Its weight.
        statistics:
            What is known of its input, with values kept.
    """

    def __init__(
        self,
        graph: Graph,
        op: Weighted,
        weight: NDArray[np.float32],
        statistics: ChannelStatistics,
    ) -> None:
        self._op = op
        self._weight = weight
        self._statistics = statistics
        self._session = _session(graph, op)
        self._exact = [self._run(x, weight) for x in statistics.kept or ()]
        values = np.concatenate([y.ravel() for y in self._exact]) if self._exact else np.zeros(1)
        self._variance = float(values.astype(np.float64).var()) or 1.0

    def error(self, factors: NDArray[np.float64]) -> float:
        """The mean squared error over the variance of the product.

        Args:
            factors:
                What the channels of the input are divided by, of shape ``(channels,)``.
        """
        low, high = self._statistics.low, self._statistics.high
        assert low is not None and high is not None
        by_place = factors.reshape(-1, *[1] * (-self._statistics.axis - 1))
        rmin, rmax = float((low / factors).min()), float((high / factors).max())
        scale, zero_point = scale_zero_point(rmin, rmax, "uint8", "asym")
        step, zero = float(scale), int(zero_point)
        layout = self._op.layout
        weight = layout.scaled_inputs(self._weight, factors).astype(np.float32)
        axis = layout.output_axis if layout.output_axis == layout.split_axis else None
        if layout.groups == 1:
            axis = layout.output_axis
        integers, scales, _ = quantize_weight(weight, "int8", "sym", axis)
        shape = [1] * weight.ndim
        if axis is not None:
            shape[axis] = -1
        rounded = (integers * scales.reshape(shape)).astype(np.float32)
        total, count = 0.0, 0
        for x, exact in zip(self._statistics.kept or (), self._exact, strict=True):
            grid = np.clip(np.rint(x / by_place / step) + zero, 0, 255)
            actual = self._run(((grid - zero) * step).astype(np.float32), rounded)
            total += float(np.square(actual - exact, dtype=np.float64).sum())
            count += exact.size
        return total / max(1, count) / self._variance

    def _run(self, x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run(None, {"x": x, "w": weight})[0]
        return found


def least_error(
    candidates: Sequence[NDArray[np.float64]],
    products: Sequence[QuantizedProduct],
    criterion: str,
    *,
    gain: float = 0.0,
) -> tuple[int, float]:
    """Which of some factors gives the products of ops that share them the least error.

    Args:
        candidates:
            The factors; the last ones are those to be taken unless others are better.
        products:
            The ops.
        criterion:
            What is made of their errors: ``"mean"``, ``"min"`` or ``"max"``.
        gain:
            By what part of the error of the last ones others must be better.

    Returns:
        The position of the best, and its error.
    """
    errors = [_COMBINED[criterion]([p.error(f) for p in products]) for f in candidates]
    best = int(np.argmin(errors))
    if errors[best] >= (1 - gain) * errors[-1]:
        best = len(errors) - 1
    return best, errors[best]


def _session(graph: Graph, op: Weighted) -> onnxruntime.InferenceSession:
    """The op alone, with its weight as an input and without its bias."""
    node = onnx.NodeProto()
    node.CopyFrom(graph.nodes[op.index])
    del node.input[:], node.output[:]
    node.input.extend(["x", "w"])
    node.output.append("y")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in ("x", "w", "y")
    ]
    made = onnx.helper.make_graph([node], "op", values[:2], values[2:])
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", graph.opset)], ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # For products as small as these others would be waited for.
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
