"""Ops that run in float16, between casts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.backends.onnxruntime.model.graph import Graph


_LARGEST = float(np.finfo(np.float16).max)
_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def half_inputs(node: onnx.NodeProto, graph: Graph) -> tuple[int, ...]:
    """The positions of the inputs that are of float16 if an op computes in it.

    Args:
        node:
            The op.
        graph:
            Its graph.

    Returns:
        The positions; empty if the op cannot: it is no standard operator, the standard has no
        float16 for it, it writes something else than floats, or a constant of it is too large.
    """
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return ()
    schema = onnx.defs.get_schema(node.op_type, graph.opset)
    kind = schema.outputs[0].type_str
    types = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    if "tensor(float16)" not in types.get(kind, ()):
        return ()
    last = len(schema.inputs) - 1
    found = tuple(
        position
        for position, name in enumerate(node.input)
        if name and schema.inputs[min(position, last)].type_str == kind
    )
    names = [node.input[position] for position in found]
    if not all(graph.is_float(name) is not False for name in names):
        return ()
    constants = [graph.array(name) for name in names if graph.is_constant(name)]
    fits = all(np.all(np.abs(array) <= _LARGEST) for array in constants)
    return found if fits else ()


def apply_half(
    rewrite: Rewrite,
    model: onnx.ModelProto,
    graph: Graph,
    ops: Collection[str],
) -> None:
    """Let ops compute in float16, in place.

    A Cast gives an op its inputs in float16, and another one its output back in float32. What one
    such op makes another one reads without either. Constants are stored in float16.

    Args:
        rewrite:
            The rewrite of the model.
        model:
            The model.
        graph:
            The graph that it was built from.
        ops:
            The names of the ops.
    """
    original = {node.name: node for node in graph.nodes}
    made: dict[str, str] = {}
    back: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in ops:
            nodes.append(node)
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position in half_inputs(original[node.name], graph):
            name = node.input[position]
            if name not in made:
                made[name] = _as_half(rewrite, graph, node, name, nodes)
            copy.input[position] = made[name]
        output = node.output[0]
        copy.output[0] = made[output] = rewrite.name(f"{output}_float16")
        cast = rewrite.node("Cast", node, "to_float", [made[output]], [output], to=_FLOAT)
        nodes += [copy, cast]
        back.add(output)
    read = {name for node in nodes for name in node.input} | graph.captured | graph.outputs
    # Nobody reads the float32 output of an op whose readers all compute in float16.
    unread = back - read
    rewrite.commit([n for n in nodes if not unread.intersection(n.output)])


def _as_half(
    rewrite: Rewrite, graph: Graph, node: onnx.NodeProto, name: str, nodes: list[onnx.NodeProto]
) -> str:
    """The tensor that has the values of another one in float16."""
    if rewrite.is_constant(name) and graph.is_constant(name):
        rewrite.replace_weight(name)
        return rewrite.constant(f"{name}_float16", graph.array(name).astype(np.float16))
    half = rewrite.name(f"{name}_float16")
    cast = rewrite.name(f"{node.name}_to_float16")
    nodes.append(helper.make_node("Cast", [name], [half], cast, to=_HALF))
    return half
