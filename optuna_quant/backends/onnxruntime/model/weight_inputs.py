"""Which initializers are weights, for the models that list them as inputs.

Since IR version 4 an initializer that is also an input is a default, which callers may replace.
Some exporters list every initializer so. The weights of ops that can be quantized are taken off
that list, because a quantized weight cannot be replaced; everything else stays on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from types import MappingProxyType

import onnx

from optuna_quant.backends.onnxruntime.model.graph import CONTRIB


_STANDARD = ("", "ai.onnx")

# By domain and op type the inputs that are weights and biases.
_POSITIONS: Mapping[tuple[str, str], tuple[int, ...]] = MappingProxyType(
    {
        ("", "Conv"): (1, 2),
        ("", "ConvTranspose"): (1, 2),
        ("", "Gather"): (0,),
        ("", "GatherElements"): (0,),
        ("", "Gemm"): (1, 2),
        ("", "LSTM"): (1, 2),
        ("", "MatMul"): (1,),
        (CONTRIB, "Attention"): (1, 2),
        (CONTRIB, "EmbedLayerNormalization"): (2, 3, 4, 5, 6),
        (CONTRIB, "FusedConv"): (1, 2),
    }
)
# Operators that may stand between a weight and its reader.
_RESHAPING = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


def weight_initializers(
    nodes: Sequence[onnx.NodeProto], initializers: Mapping[str, onnx.TensorProto]
) -> frozenset[str]:
    """The initializers that ops which can be quantized read as weights or biases.

    Args:
        nodes:
            The nodes of the main graph.
        initializers:
            Its initializers by name.
    """
    producers = {name: node for node in nodes for name in node.output if name}
    found = set()
    for node in nodes:
        for name in _weights(node, producers, initializers):
            origin = _origin(name, producers)
            if origin in initializers and _holds_floats(initializers[origin]):
                found.add(origin)
    return frozenset(found)


def _weights(
    node: onnx.NodeProto,
    producers: Mapping[str, onnx.NodeProto],
    initializers: Mapping[str, onnx.TensorProto],
) -> Iterator[str]:
    """The inputs of a node that may be weights."""
    domain = "" if node.domain in _STANDARD else node.domain
    inputs = list(node.input)
    for position in _POSITIONS.get((domain, node.op_type), ()):
        if position < len(inputs) and inputs[position]:
            yield inputs[position]
    if domain:
        return
    if node.op_type == "MatMul" and _origin(inputs[1], producers) not in initializers:
        yield inputs[0]  # of two constants the other is data: a state, for instance
    elif node.op_type == "BatchNormalization" and _is_made_by("Conv", inputs[0], producers):
        yield from inputs[1:]  # it becomes a part of the convolution
    elif node.op_type == "Add":
        for one, other in (inputs, inputs[::-1]):
            vector = one in initializers and len(initializers[one].dims) == 1
            if vector and _is_made_by("MatMul", other, producers):
                yield one


def _is_made_by(op_type: str, name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    node = producers.get(name)
    return node is not None and node.op_type == op_type and node.domain in _STANDARD


def _origin(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """The tensor that a tensor is a view of."""
    while (node := producers.get(name)) is not None and node.op_type in _RESHAPING:
        name = node.input[0]
    return name


def _holds_floats(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
    )
