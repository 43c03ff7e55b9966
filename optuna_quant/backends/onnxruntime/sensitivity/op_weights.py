"""The weights of ops, and how far quantization moves them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.weight_algorithms.quantize import WEIGHT_ONLY_ALGORITHMS
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.space.config import TensorConfig


# Which input may be the weight. Of two constants the last: the other is data.
_POSITIONS = MappingProxyType(
    {"Conv": (1,), "ConvTranspose": (1,), "Gather": (0,), "Gemm": (1,), "MatMul": (1, 0)}
)


def find_weights(graph: Graph) -> dict[str, str]:
    """The initializer that is the weight of each op with one, by op name.

    These are the floating-point weights of convolutions, matrix products, linear layers and
    embeddings.
    """
    found = {}
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        for position in _POSITIONS.get(node.op_type, ()):
            name = node.input[position]
            if graph.is_constant(name) and graph.is_float(name):
                found[node.name] = name
                break
    return found


def channel_axis(node: onnx.NodeProto, weight: str, rank: int) -> int | None:
    """The axis of an op's weight that has a place for each output channel.

    Args:
        node:
            The op.
        weight:
            The name of the weight, one of the op's inputs.
        rank:
            How many axes the weight has.

    Returns:
        The axis, from 0 on. None if the op has no such axis, so that its weight is quantized as a
        whole.
    """
    position = list(node.input).index(weight)
    if node.op_type in ("Conv", "FusedConv"):
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if node_attributes(node).get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        turned = node_attributes(node).get("transB" if position else "transA", 0)
        return int(bool(turned) != bool(position))
    if node.op_type == "MatMul" and rank > 1:
        return rank - 1 if position else rank - 2
    return None


def squared_perturbation(weight: NDArray[Any], config: TensorConfig, axis: int | None) -> float:
    """The squared L2 norm of what rounding to the nearest value changes of a weight.

    Weight-only algorithms that look at the inputs of an op are taken as ``"rtn"``: what they
    change is a matter of the data.

    Args:
        weight:
            The weight.
        config:
            How it is quantized. Groups (``"per_group"``) are formed of the values of one channel,
            in order, or of the rows of a table; the last may be smaller.
        axis:
            Its channel axis; None to quantize it as a whole, or in groups over all of it.

    Raises:
        ValueError:
            If the weight is not finite, or its quantized type is not known.
    """
    if config.algorithm in WEIGHT_ONLY_ALGORITHMS:
        return _grouped_perturbation(weight if axis != 1 else weight.T, config)
    if config.granularity == "per_group":
        assert config.group_size is not None
        rows = weight[np.newaxis] if axis is None else np.moveaxis(weight, axis, 0)
        rows = rows.reshape(rows.shape[0], -1)
        # Zeros are in every range, and exact.
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % config.group_size)))
        weight, axis = rows.reshape(-1, config.group_size), 0
    elif config.granularity == "per_tensor":
        axis = None
    algorithm = config.algorithm if config.algorithm == "mse" else "minmax"
    integers, scale, zero_point = quantize_weight(
        weight, config.dtype, config.scheme, axis, algorithm
    )
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    steps = integers.astype(np.float32) - zero_point.astype(np.float32).reshape(shape)
    change = (steps * scale.reshape(shape) - weight.astype(np.float32)).reshape(-1)
    return float(np.einsum("i,i->", change, change, dtype=np.float64))


def _grouped_perturbation(weight: NDArray[Any], config: TensorConfig) -> float:
    """The same for a matrix ``[outputs, inputs]`` whose weights alone are quantized."""
    needs_inputs = config.algorithm in NEEDS_INPUTS
    grouped = quantize_grouped(
        weight,
        bits=config.bits,
        group_size=config.group_size,
        scheme=config.scheme,  # type: ignore[arg-type]
        algorithm="rtn" if needs_inputs else config.algorithm,
    )
    change = grouped.effective() - weight
    return float(np.einsum("oi,oi->", change, change, dtype=np.float64))
