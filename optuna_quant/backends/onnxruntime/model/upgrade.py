"""Bringing the operators of opsets 10 to 12 into the form that they have since opset 13.

From there on DequantizeLinear has a channel axis, which ONNX Runtime's own optimizer writes into
older models as well and then refuses. ``onnx.version_converter`` rewrites a whole model by way of
another representation, which drops functions and takes neither operators of other domains inside
subgraphs nor data in files; only the operators whose form has changed are rewritten here.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper

from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import is_small
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import subgraphs
from optuna_quant.backends.onnxruntime.model.graph import take_name


if TYPE_CHECKING:
    from numpy.typing import NDArray


TARGET_OPSET = 13

_STANDARD = ("", "ai.onnx")
_SMALL_BYTES = 1 << 12


class CannotUpgradeError(Exception):
    """An operator has no form in the target opset that surely computes the same."""


def upgraded(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in opset 13, if it is in an older one; names of nodes and tensors stay.

    Args:
        proto:
            The model, opset 10 or newer, without local functions. It is not changed.
        opset:
            The version of its standard operators.

    Raises:
        CannotUpgradeError:
            If that is not possible for one of its operators, which the text names.
    """
    if opset >= TARGET_OPSET:
        return proto
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    names = set(Graph(model, tuple(model.graph.node), tensors, opset).names)
    known = _infer(model)
    _upgrade_graph(model.graph, _Context(opset, names, known, {}))
    for entry in model.opset_import:
        if entry.domain in _STANDARD:
            entry.version = TARGET_OPSET
    return model


@dataclass(frozen=True, eq=False)
class _Context:
    """What is known of the graph whose nodes are rewritten.

    Args:
        opset:
            The opset that its nodes are written in.
        names:
            The names that are taken; new ones are added.
        values:
            The inferred types of tensors.
        constants:
            The values of small constants.
    """

    opset: int
    names: set[str]
    values: Mapping[str, onnx.TypeProto.Tensor]
    constants: Mapping[str, NDArray[Any]]

    def name(self, wish: str) -> str:
        return take_name(wish, self.names)

    def rank(self, tensor: str) -> int | None:
        known = self.values.get(tensor)
        return len(known.shape.dim) if known is not None and known.HasField("shape") else None

    def constant(self, node: onnx.NodeProto, role: str, array: NDArray[Any]) -> onnx.NodeProto:
        """A node that gives a constant to a node."""
        output = self.name(f"{node.output[0]}_{role}")
        value = numpy_helper.from_array(array, output)
        return helper.make_node("Constant", [], [output], self.name(f"{output}_c"), value=value)

    def like(self, node: onnx.NodeProto, role: str, value: float) -> onnx.NodeProto:
        """As :meth:`constant`, of the type of the node's first input."""
        known = self.values.get(node.input[0])
        if known is None or not known.elem_type:
            raise CannotUpgradeError(
                f"the type of tensor {node.input[0]!r}, which node {node.name!r} "
                f"({node.op_type}) reads, is not known"
            )
        dtype = helper.tensor_dtype_to_np_dtype(known.elem_type)
        return self.constant(node, role, np.array(value, dtype))


def _infer(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """The types of the tensors of a model, in subgraphs as well, as far as they can be told."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    graph = skeleton.graph
    # Inference reads the data of small initializers only.
    tensors = list(graph.initializer)
    del graph.initializer[:]
    inputs = {value.name for value in graph.input}
    for tensor in tensors:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if not external and is_small(tensor, _SMALL_BYTES):
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    found: dict[str, onnx.TypeProto.Tensor] = {}
    _collect_types(onnx.shape_inference.infer_shapes(skeleton).graph, found)
    return found


def _collect_types(graph: onnx.GraphProto, found: dict[str, onnx.TypeProto.Tensor]) -> None:
    for tensor in graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        found[tensor.name] = info.type.tensor_type
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type"):
            found[value.name] = value.type.tensor_type
    for node in graph.node:
        for inner in subgraphs(node):
            _collect_types(inner, found)


def _upgrade_graph(graph: onnx.GraphProto, outer: _Context) -> None:
    inputs = {value.name for value in graph.input}
    own = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name not in inputs
        and tensor.data_location != onnx.TensorProto.EXTERNAL
        and is_small(tensor, _SMALL_BYTES)
    }
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            own[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    context = _Context(outer.opset, outer.names, outer.values, {**outer.constants, **own})
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for inner in subgraphs(node):
            _upgrade_graph(inner, context)
        nodes += _upgrade_node(node, context) if node.domain in _STANDARD else [node]
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def _upgrade_node(node: onnx.NodeProto, context: _Context) -> Sequence[onnx.NodeProto]:
    since, handler = _HANDLERS.get(node.op_type, (0, None))
    if handler is not None and context.opset < since:
        return handler(node, context)
    try:
        schema = onnx.defs.get_schema(node.op_type, TARGET_OPSET, "")
    except onnx.defs.SchemaError:
        schema = None
    if schema is None or schema.deprecated:
        raise CannotUpgradeError(
            f"node {node.name!r} ({node.op_type}) has no form in opset {TARGET_OPSET}"
        )
    return [node]


def _without(node: onnx.NodeProto, *names: str) -> onnx.NodeProto:
    """A copy of a node that lacks some attributes."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    kept = [attribute for attribute in copy.attribute if attribute.name not in names]
    del copy.attribute[:]
    copy.attribute.extend(kept)
    return copy


def _with_list(attribute: str) -> _Handler:
    """Make an input of an attribute that is a list of integers."""

    def handle(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
        value = node_attributes(node).get(attribute)
        if value is None:
            return [node]
        constant = context.constant(node, attribute, np.array(value, np.int64))
        copy = _without(node, attribute)
        copy.input.append(constant.output[0])
        return [constant, copy]

    return handle


def _clip(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
    attributes = node_attributes(node)
    copy, made = _without(node, "min", "max"), []
    for name in ("min", "max"):
        if name in attributes:
            made.append(context.like(node, name, attributes[name]))
            copy.input.append(made[-1].output[0])
        else:
            copy.input.append("")
    return [*made, copy]


def _pad(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
    attributes = node_attributes(node)
    copy = _without(node, "pads", "value")
    made = [context.constant(node, "pads", np.array(attributes["pads"], np.int64))]
    if attributes.get("value", 0.0) != 0.0:
        made.append(context.like(node, "value", attributes["value"]))
    copy.input.extend(constant.output[0] for constant in made)
    return [*made, copy]


def _dropout(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
    del context
    if any(node.output[1:]):
        raise CannotUpgradeError(f"node {node.name!r} ({node.op_type}) gives its mask")
    return [_without(node, "ratio")]


def _softmax(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
    """Before opset 13 these are computed over all axes from one on."""
    axis, rank = node_attributes(node).get("axis", 1), context.rank(node.input[0])
    last = axis == -1 or (rank is not None and axis in (rank - 1, -1))
    copy = _without(node, "axis")
    copy.attribute.append(helper.make_attribute("axis", -1))
    if last:
        return [copy]
    output = node.output[0]
    flat, result, shape = (context.name(f"{output}_{role}") for role in ("flat", "rows", "shape"))
    copy.input[0], copy.output[0] = flat, result
    return [
        helper.make_node("Shape", node.input, [shape], context.name(f"{node.name}_shape")),
        helper.make_node(
            "Flatten", node.input, [flat], context.name(f"{node.name}_flatten"), axis=axis
        ),
        copy,
        helper.make_node(
            "Reshape", [result, shape], [output], context.name(f"{node.name}_reshape")
        ),
    ]


def _resize(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
    """Before opset 11 coordinates are divided by the scales, and rounded by the direction."""
    mode = node_attributes(node).get("mode", b"nearest").decode()
    keywords = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        scales = context.constants.get(node.input[1])
        if scales is None or not (np.all(scales >= 1.0) or np.all(scales <= 1.0)):
            raise CannotUpgradeError(
                f"the scales of node {node.name!r} ({node.op_type}) are computed by the model, or "
                "some enlarge and some reduce"
            )
        keywords["nearest_mode"] = "floor" if np.all(scales >= 1.0) else "ceil"
    inputs = [node.input[0], "", node.input[1]]
    return [helper.make_node("Resize", inputs, node.output, node.name, **keywords)]


def _scatter(node: onnx.NodeProto, context: _Context) -> list[onnx.NodeProto]:
    del context
    copy = _without(node)
    copy.op_type = "ScatterElements"
    return [copy]


_Handler: TypeAlias = Callable[[onnx.NodeProto, _Context], "Sequence[onnx.NodeProto]"]

_HANDLERS: Mapping[str, tuple[int, _Handler]] = MappingProxyType(
    {
        "Clip": (11, _clip),
        "Dropout": (12, _dropout),
        "Hardmax": (13, _softmax),
        "LogSoftmax": (13, _softmax),
        "Pad": (11, _pad),
        "ReduceSum": (13, _with_list("axes")),
        "Resize": (11, _resize),
        "Scatter": (13, _scatter),
        "Softmax": (13, _softmax),
        "Split": (13, _with_list("split")),
        "Squeeze": (13, _with_list("axes")),
        "Unsqueeze": (13, _with_list("axes")),
        "Upsample": (11, _resize),
    }
)
"""By operator: the first opset with the form of opset 13, and what makes that form."""
