"""The weights of ops."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph


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
