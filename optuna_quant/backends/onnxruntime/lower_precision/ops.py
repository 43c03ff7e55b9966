"""Ops that compute in floats of 16 bits, between Casts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx
from onnx import helper


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.backends.onnxruntime.lower_precision.types import FloatType
    from optuna_quant.backends.onnxruntime.model.graph import Graph


def inputs_in(kind: FloatType, node: onnx.NodeProto, graph: Graph) -> tuple[int, ...]:
    """The positions of the inputs that are of a type if an op computes in it.

    Args:
        kind:
            The type.
        node:
            The op.
        graph:
            Its graph.

    Returns:
        The positions; empty if the op cannot: it is no standard operator, the standard does not
        have the type for it in the opset of the model, it writes something else than floats, or
        a constant of it is too large.
    """
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return ()
    schema = onnx.defs.get_schema(node.op_type, graph.opset)
    parameter = schema.outputs[0].type_str
    types = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    if f"tensor({kind.name})" not in types.get(parameter, ()):
        return ()
    last = len(schema.inputs) - 1
    found = tuple(
        position
        for position, name in enumerate(node.input)
        if name and schema.inputs[min(position, last)].type_str == parameter
    )
    names = [node.input[position] for position in found]
    if not all(graph.is_float(name) is not False for name in names):
        return ()
    constants = [graph.array(name) for name in names if graph.is_constant(name)]
    return found if all(map(kind.can_hold, constants)) else ()


def compute_in(
    rewrite: Rewrite, model: onnx.ModelProto, graph: Graph, ops: Mapping[str, FloatType]
) -> None:
    """Let ops compute in floats of 16 bits, in place.

    A Cast gives an op its inputs in its type, and another one its output back in float32. What one
    such op makes another one of the same type reads without either. Constants are stored in it.

    Args:
        rewrite:
            The rewrite of the model.
        model:
            The model.
        graph:
            The graph that it was built from.
        ops:
            The types by the names of the ops.

    Raises:
        ValueError:
            If an op cannot compute in its type, see :func:`inputs_in`.
    """
    original = {node.name: node for node in graph.nodes}
    made: dict[tuple[str, FloatType], str] = {}
    back: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        kind = ops.get(node.name)
        if kind is None:
            nodes.append(node)
            continue
        positions = inputs_in(kind, original[node.name], graph)
        if not positions:
            raise ValueError(
                f"Op {node.name!r} ({node.op_type}) cannot run in mode {kind.mode!r}: ONNX has no "
                f"{kind.name} for it in opset {graph.opset}, or one of its constants is beyond "
                f"{kind.largest:.6g}. Run it in 'fp32'."
            )
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position in positions:
            name = node.input[position]
            if (name, kind) not in made:
                made[name, kind] = _cast(rewrite, graph, node, name, kind, nodes)
            copy.input[position] = made[name, kind]
        output = node.output[0]
        copy.output[0] = made[output, kind] = rewrite.name(f"{output}_{kind.name}")
        to = onnx.TensorProto.FLOAT
        cast = rewrite.node("Cast", node, "to_float", [copy.output[0]], [output], to=to)
        nodes += [copy, cast]
        back.add(output)
    read = {name for node in nodes for name in node.input} | graph.captured | graph.outputs
    # The float32 output of an op whose readers all compute in its type has no reader.
    unread = back - read
    rewrite.commit([n for n in nodes if not unread.intersection(n.output)])


def _cast(
    rewrite: Rewrite,
    graph: Graph,
    node: onnx.NodeProto,
    name: str,
    kind: FloatType,
    nodes: list[onnx.NodeProto],
) -> str:
    """The tensor that has the values of another one in a type."""
    if rewrite.is_constant(name) and graph.is_constant(name):
        return kind.constant(rewrite, graph, name)
    lower = rewrite.name(f"{name}_{kind.name}")
    cast = rewrite.name(f"{node.name}_to_{kind.name}")
    nodes.append(helper.make_node("Cast", [name], [lower], cast, to=kind.data_type))
    return lower
