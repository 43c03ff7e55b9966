"""Bringing a model into the form that the rest of the backend works on; a copy, always.

Nodes get names of their own, constants become initializers, and what depends on constants alone is
computed once, so that what stands between a weight and its reader (a Cast, a Reshape, a Transpose)
is gone; so is a batch normalization behind a Conv, in whatever form. An Einsum that is a product
with a weight is a MatMul. What the model computes stays
the same, but for rounding in folded batch normalizations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx
from onnx import inliner
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.model.channel_folding import fold_channel_steps
from optuna_quant.backends.onnxruntime.model.constant_folding import fold_constants
from optuna_quant.backends.onnxruntime.model.einsum_writer import EinsumWriter
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import captured_names
from optuna_quant.backends.onnxruntime.model.graph import name_nodes
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import take_name
from optuna_quant.backends.onnxruntime.model.kernel_forms import drop_neutral_attributes
from optuna_quant.backends.onnxruntime.model.tensor_references import copy_field
from optuna_quant.backends.onnxruntime.model.upgrade import TARGET_OPSET
from optuna_quant.backends.onnxruntime.model.upgrade import CannotUpgradeError
from optuna_quant.backends.onnxruntime.model.upgrade import upgraded
from optuna_quant.backends.onnxruntime.model.weight_inputs import weight_initializers


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.model import SourceModel


_logger = get_logger(__name__)

_CLIP_INPUTS_OPSET = 11
"""The first opset whose Clip has its limits as inputs."""

# Activation functions of a FusedConv but for Clip, and the attributes that its parameters become.
_FUSED_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "HardSigmoid": ("alpha", "beta"),
        "LeakyRelu": ("alpha",),
        "Relu": (),
        "Sigmoid": (),
        "Tanh": (),
    }
)


def normalize(source: SourceModel) -> Graph:
    """The graph of a model in normal form. The model is not changed."""
    proto = source.proto
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    try:
        proto = upgraded(proto, source.opset)
    except CannotUpgradeError as error:
        _logger.warning(
            f"The model stays in opset {source.opset}, in which ONNX Runtime may not load all "
            f"of its quantized forms: {error}. Export it again with opset {TARGET_OPSET} or "
            "newer."
        )
    else:
        source = replace(source, opset=max(source.opset, TARGET_OPSET))
    draft = _Draft(proto, source)
    draft.sort_nodes()
    draft.close_inputs()
    draft.lift_constants()
    draft.drop_copies()
    draft.einsums_as_matmuls()
    draft.fold_constants()
    draft.split_fused_convs()
    draft.fold_channel_steps()
    return draft.graph()


class _Draft:
    """A graph in the making."""

    def __init__(self, proto: onnx.ModelProto, source: SourceModel) -> None:
        self._source = source
        self._nodes = []
        for node in proto.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            self._nodes.append(copy)
        name_nodes(self._nodes)
        drop_neutral_attributes(self._nodes)
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._recipes: Mapping[str, onnx.NodeProto] = MappingProxyType({})
        self._template = _without_content(proto)
        graph = Graph(self._template, self._nodes, self._initializers, source.opset)
        self._names = set(graph.names)
        # Names that others than the nodes of this graph refer to.
        self._seen = graph.outputs | graph.captured

    def graph(self) -> Graph:
        # The shapes of tensors that are gone would be wrong for others that take their names.
        made = {name for node in self._nodes for name in node.output}
        kept = [value for value in self._template.graph.value_info if value.name in made]
        del self._template.graph.value_info[:]
        self._template.graph.value_info.extend(kept)
        return Graph(
            self._template,
            tuple(self._nodes),
            self._initializers,
            self._source.opset,
            self._source.base_dir,
            self._recipes,
        )

    def sort_nodes(self) -> None:
        """Put producers first, and change nothing if they are."""
        made = {name for node in self._nodes for name in node.output if name}
        needs = []
        for node in self._nodes:
            read = {*node.input, *captured_names(node)}
            needs.append(read & made)
        waiting = deque(range(len(self._nodes)))
        done: set[str] = set()
        order: list[onnx.NodeProto] = []
        stuck = 0
        while waiting:
            i = waiting.popleft()
            if needs[i] <= done:
                order.append(self._nodes[i])
                done.update(self._nodes[i].output)
                stuck = 0
            else:
                waiting.append(i)
                stuck += 1
                if stuck > len(waiting):
                    raise ValueError(f"The model has a cycle at node {self._nodes[i].name!r}.")
        self._nodes = order

    def close_inputs(self) -> None:
        """Take weights off the list of inputs, where old exporters put them.

        Before IR version 4 every initializer stood there. Later this says that callers may replace
        it, which a quantized weight does not allow.
        """
        old = self._template.ir_version < 4
        if old:
            self._template.ir_version = 4
        weights = weight_initializers(self._nodes, self._initializers)
        graph = self._template.graph
        kept = [
            value
            for value in graph.input
            if value.name not in self._initializers or not (old or value.name in weights)
        ]
        del graph.input[:]
        graph.input.extend(kept)

    def lift_constants(self) -> None:
        """Make initializers of Constant nodes."""
        kept = []
        for node in self._nodes:
            tensor = _constant(node) if node.op_type == "Constant" and not node.domain else None
            if tensor is None or node.output[0] in self._outputs():
                kept.append(node)
            else:
                self._initializers[node.output[0]] = tensor
        self._nodes = kept

    def drop_copies(self) -> None:
        """Leave out Identity, Dropout, and Cast to the type that is there, as the runtime does.

        Readers of the copy read the tensor itself, so that all that is behind it is seen.
        """
        kept = []
        renamed: dict[str, str] = {}
        casts = any(node.op_type == "Cast" for node in self._nodes)
        dtypes = self.graph().dtypes if casts else {}
        for node in self._nodes:
            for i, name in enumerate(node.input):
                node.input[i] = renamed.get(name, name)
            if _is_copy(node, dtypes) and not self._seen.intersection(node.output):
                renamed[node.output[0]] = node.input[0]
            else:
                kept.append(node)
        self._nodes = kept

    def einsums_as_matmuls(self) -> None:
        """Make a MatMul, which can be quantized, of Einsums that are products with a weight."""
        inputs = {value.name for value in self._template.graph.input}
        weights = {n: t for n, t in self._initializers.items() if n not in inputs}
        writer = EinsumWriter(weights, self._new_name)
        self._nodes = [new for node in self._nodes for new in writer.written(node)]
        self._initializers.update(writer.constants)

    def fold_constants(self) -> None:
        """Compute what depends on constants alone, so that the reader sees a constant."""
        folding = fold_constants(self.graph())
        self._nodes = list(folding.nodes)
        self._initializers.update(folding.values)
        self._recipes = folding.recipes

    def split_fused_convs(self) -> None:
        """Make a Conv and what follows it of each FusedConv, which only floats have."""
        split: list[onnx.NodeProto] = []
        for node in self._nodes:
            fused = node.op_type == "FusedConv" and self._source.opset >= _CLIP_INPUTS_OPSET
            steps = self._unfused(node) if fused else None
            if steps is None:
                split.append(node)
                continue
            for before, after in pairwise(steps):
                before.output.append(self._new_name(f"{node.output[0]}_{before.op_type}"))
                after.input.insert(0, before.output[0])
                after.name = self._new_name(f"{node.name}_{after.op_type}")
            steps[-1].output.append(node.output[0])
            split += steps
        self._nodes = split

    def _unfused(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """The operators of a FusedConv, yet to be connected; None if its activation is unknown."""
        values = node_attributes(node)
        activation = values.pop("activation", b"").decode()
        parameters = [float(value) for value in values.pop("activation_params", ())]
        conv = onnx.helper.make_node("Conv", node.input[:3], [], node.name)
        conv.attribute.extend(a for a in node.attribute if a.name in values)
        steps = [conv]
        if len(node.input) > 3 and node.input[3]:
            steps.append(onnx.helper.make_node("Add", node.input[3:4], []))
        if activation == "Clip":
            limits = [self._new_name(f"{node.name}_limit") for _ in parameters]
            for name, value in zip(limits, parameters, strict=True):
                self._add(name, np.array(value, dtype=np.float32))
            steps.append(onnx.helper.make_node("Clip", limits, []))
        elif activation in _FUSED_PARAMETERS:
            step = onnx.helper.make_node(activation, [], [])
            for name, value in zip(_FUSED_PARAMETERS[activation], parameters, strict=False):
                step.attribute.append(onnx.helper.make_attribute(name, value))
            steps.append(step)
        elif activation:
            return None
        return steps

    def fold_channel_steps(self) -> None:
        """Fold each batch normalization, in whatever form, into the Conv before it."""
        folding = fold_channel_steps(self.graph())
        self._nodes = list(folding.nodes)
        self._initializers.update(folding.values)

    def _outputs(self) -> set[str]:
        return {value.name for value in self._template.graph.output}

    def _add(self, name: str, array: NDArray[Any]) -> None:
        self._initializers[name] = onnx.numpy_helper.from_array(array, name)

    def _new_name(self, wish: str) -> str:
        return take_name(wish, self._names)


def _is_copy(node: onnx.NodeProto, dtypes: Mapping[str, int]) -> bool:
    """Whether a node gives its input on as it is, given the element types that are known."""
    if node.domain or any(node.output[1:]):
        return False
    if node.op_type == "Cast":
        return bool(dtypes.get(node.input[0]) == node_attributes(node)["to"])
    # A third input may switch a Dropout to training.
    return node.op_type == "Identity" or (node.op_type == "Dropout" and not any(node.input[2:]))


def _without_content(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model without its nodes, initializers and functions."""
    template = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            for inner, content in value.ListFields():
                if inner.name not in ("node", "initializer"):
                    copy_field(template.graph, inner.name, content)
        elif field.name != "functions":
            copy_field(template, field.name, value)
    return template


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node; None if it is not a dense tensor of numbers."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    if attribute.name not in kinds:
        return None
    value = onnx.helper.get_attribute_value(attribute)
    return onnx.numpy_helper.from_array(
        np.array(value, dtype=kinds[attribute.name]), node.output[0]
    )
