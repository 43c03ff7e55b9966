"""Dynamic mode of ops that are whole layers; part of :mod:`.dynamic`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from optuna_quant.backends.onnxruntime.dynamic.rewrite import CONTRIB


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.space.config import TensorConfig


def lacking_kernel(node: onnx.NodeProto) -> str | None:
    """What such an op does that its quantized kernel cannot do; None if there is nothing."""
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Attention":
        if "qkv_hidden_sizes" in attributes:
            return "it has sizes of its own for Q, K and V"
        if any(node.input[5:]):
            return "it reads an attention bias or a shared past"
    elif node.op_type == "LSTM":
        if "layout" in attributes and attributes["layout"].i != 0:
            return "the batch is its first axis"
    elif node.op_type == "EmbedLayerNormalization":
        if any(node.output[2:]):
            return "it also outputs the sum before the normalization"
        if any(node.input[8:]):
            return "it reads position ids"
    return None


def attention(
    rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig
) -> list[onnx.NodeProto]:
    """Make a QAttention of a com.microsoft Attention."""
    inputs = _padded(node, 7)
    rewrite.check_granularity(node, config, per_channel=True)
    array = rewrite.weight_array(node, 1)
    axis = 1 if config.granularity == "per_channel" else None
    values, scale, zero_point = rewrite.quantize_weight(
        inputs[1], array, config, axis, reduced=(0,)
    )
    zero_point = np.broadcast_to(zero_point, scale.shape)
    weight = rewrite.store(inputs[1], (config, axis, "Attention"), (values, scale, zero_point))
    bias = inputs[2]
    if not bias:
        zeros = np.zeros(array.shape[1], dtype=np.float32)
        bias = rewrite.constant(f"{node.name}_bias", zeros)
    nodes, activation = rewrite.activation(inputs[0])
    names = [activation[0], weight[0], bias, activation[1], weight[1], inputs[3]]
    names += [activation[2], weight[2], inputs[4]]
    made = helper.make_node("QAttention", names, node.output, node.name, domain=CONTRIB)
    made.attribute.extend(node.attribute)
    return [*nodes, made]


def lstm(rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig) -> list[onnx.NodeProto]:
    """Make a DynamicQuantizeLSTM of an LSTM."""
    rewrite.check_granularity(node, config, per_channel=True)
    inputs = _padded(node, 8)
    axis = 0 if config.granularity == "per_channel" else None
    tables, grids = [], []
    for position in (1, 2):
        array = rewrite.weight_array(node, position)
        directions, rows, columns = array.shape
        # One scale for each row of each direction: the kernel has no other per-channel form.
        flat = array.reshape(directions * rows, columns)
        values, scale, zero_point = rewrite.quantize_weight(
            inputs[position], flat, config, axis, reduced=(1,)
        )
        values = values.reshape(array.shape).transpose(0, 2, 1)
        shape = (directions,) if axis is None else (directions, rows)
        zero_point = np.broadcast_to(zero_point, (directions * rows,) if axis == 0 else shape)
        scale = np.broadcast_to(scale, zero_point.shape).reshape(shape)
        weight = (values, scale, zero_point.reshape(shape))
        names = rewrite.store(inputs[position], (config, axis, "LSTM"), weight)
        tables.append(names[0])
        grids += [names[1], names[2]]
    made = helper.make_node(
        "DynamicQuantizeLSTM",
        [inputs[0], *tables, *inputs[3:], *grids],
        node.output,
        node.name,
        domain=CONTRIB,
    )
    made.attribute.extend(a for a in node.attribute if a.name != "layout")
    return [made]


def embed_layer_normalization(
    rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig
) -> list[onnx.NodeProto]:
    """Make a QEmbedLayerNormalization of a com.microsoft EmbedLayerNormalization."""
    inputs = _padded(node, 8)
    tables = [
        rewrite.table(node, position, config) if inputs[position] else ("", "", "")
        for position in range(2, 7)
    ]
    values, scales, zero_points = zip(*tables, strict=True)
    made = helper.make_node(
        "QEmbedLayerNormalization",
        [*inputs[:2], *values, inputs[7], *scales, *zero_points],
        node.output[:2],
        node.name,
        domain=CONTRIB,
    )
    made.attribute.extend(a for a in node.attribute if a.name == "epsilon")
    return [made]


def _padded(node: onnx.NodeProto, length: int) -> list[str]:
    return [*node.input, *[""] * (length - len(node.input))]
