"""How large the floating-point constants are that ops read, as the model stores them."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.constant_values import constants_behind
from optuna_quant.backends.onnxruntime.model.constant_values import tensor_bytes
from optuna_quant.backends.onnxruntime.model.graph import captured_names
from optuna_quant.backends.onnxruntime.model.graph import subgraphs


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph


FLOAT_TYPES = frozenset(
    {
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
    }
)


def float_constants(node: onnx.NodeProto, graph: Graph) -> Mapping[Hashable, int]:
    """The bytes of each floating-point constant that a node and its subgraphs read.

    One that was computed once counts with what it is computed from if that is smaller, as it does
    in a model in which it stays in floats.
    """
    return _in_nodes([node], graph)


def total_float_bytes(nodes: Iterable[onnx.NodeProto], graph: Graph) -> int:
    """The bytes of the floating-point constants that nodes read, shared ones once."""
    return sum(_in_nodes(nodes, graph).values())


def graph_constants(graph: onnx.GraphProto) -> Mapping[str, int]:
    """The bytes of the floating-point constants of a graph inside a node, by name."""
    found = {t.name: tensor_bytes(t) for t in graph.initializer if _is_float(t)}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and _is_float(attribute.t):
                found[node.output[0]] = tensor_bytes(attribute.t)
    return found


def _in_nodes(nodes: Iterable[onnx.NodeProto], graph: Graph) -> dict[Hashable, int]:
    found: dict[Hashable, int] = {}
    for node in nodes:
        for name in (*filter(None, node.input), *captured_names(node)):
            found.update(_behind(name, graph))
        found.update(_inside(node, (node.name,)))
    return found


def _inside(node: onnx.NodeProto, path: tuple[str, ...]) -> dict[Hashable, int]:
    # A graph inside may use the names of another one for what is its own.
    found: dict[Hashable, int] = {}
    for i, inner in enumerate(subgraphs(node)):
        own = graph_constants(inner)
        found.update(((*path, str(i), name), size) for name, size in own.items())
        for each in inner.node:
            found.update(_inside(each, (*path, str(i), each.name)))
    return found


def _behind(name: str, graph: Graph) -> dict[str, int]:
    own = graph.initializers.get(name)
    sources = constants_behind(name, graph.recipes) if name in graph.recipes else set()
    tensors = [graph.initializers[source] for source in sources]
    if own is None:
        return {t.name: tensor_bytes(t) for t in tensors if _is_float(t)}
    if not _is_float(own):
        return {}
    size = tensor_bytes(own)
    return {name: min(size, sum(map(tensor_bytes, tensors))) if sources else size}


def _is_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in FLOAT_TYPES
