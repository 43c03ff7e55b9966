"""A read-only view of a model's graph: who makes a tensor, who reads it, of what type it is."""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import MutableMapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
import math
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.tensor_references import ITEM_BYTES
from optuna_quant.backends.onnxruntime.model.tensor_references import Source
from optuna_quant.backends.onnxruntime.model.tensor_references import add_initializer


if TYPE_CHECKING:
    from numpy.typing import NDArray


Shape: TypeAlias = "tuple[int | None, ...]"
"""The sizes of a tensor's axes; None for those that are not known."""

AttributeValue: TypeAlias = Any
"""An attribute of a node as ONNX's helper gives it: a number, bytes, a tensor, a graph, or a list
of one of these. Which of them follows from the operator and the attribute's name."""

CONTRIB = "com.microsoft"
"""The domain of the runtime's own operators."""

# Initializers up to this size stay in the model for shape inference, which reads the small ones.
_SMALL_BYTES = 1 << 12


@dataclass(frozen=True, eq=False)
class Graph:
    """The main graph of a model. Do not change its nodes and tensors; build new ones.

    Args:
        template:
            The model without its nodes and initializers.
        nodes:
            The nodes, producers first, each with a name of its own.
        initializers:
            The initializers by name; the data of some may be in other files.
        opset:
            The version of the standard operators.
        base_dir:
            The directory that external data are relative to; None if there are none.
        recipes:
            The node that has computed each of the initializers that are not the user's, and each
            tensor on the way to one; producers first.
    """

    template: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    initializers: Mapping[str, onnx.TensorProto]
    opset: int
    base_dir: Path | None = None
    recipes: Mapping[str, onnx.NodeProto] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def producer(self) -> Mapping[str, int]:
        """The position of the node that makes each tensor."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def readers(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """Who reads each tensor: positions of the nodes and of their inputs."""
        found: dict[str, list[tuple[int, int]]] = {}
        for i, node in enumerate(self.nodes):
            for j, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((i, j))
        return {name: tuple(places) for name, places in found.items()}

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The names of the graph's outputs."""
        return frozenset(value.name for value in self.template.graph.output)

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""
        return frozenset(value.name for value in self.template.graph.input)

    @cached_property
    def defaults(self) -> frozenset[str]:
        """The tensors that come from inputs with a default alone: data say nothing of them."""
        given = {name for name in self.inputs if name in self.initializers}
        found = set(given)
        if given:
            for i, node in enumerate(self.nodes):
                read = {*node.input, *self.captures.get(i, ())} - {""}
                if read & found and all(n in found or n in self.initializers for n in read):
                    found.update(node.output)
        return frozenset(found - {""})

    @cached_property
    def captures(self) -> Mapping[int, frozenset[str]]:
        """The tensors that the subgraphs of a node read from outside, by the node's position."""
        found = ((i, captured_names(node)) for i, node in enumerate(self.nodes))
        return {i: names for i, names in found if names}

    @cached_property
    def captured(self) -> frozenset[str]:
        """The tensors that some subgraph reads."""
        return frozenset().union(*self.captures.values())

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name in use, in subgraphs as well."""
        found = {*self.inputs, *self.outputs, *self.initializers}
        for node in (*self.nodes, *self.recipes.values()):
            found.update(_names(node))
        for sparse in self.template.graph.sparse_initializer:
            found.add(sparse.values.name)
        return frozenset(found)

    @cached_property
    def dtypes(self) -> Mapping[str, int]:
        """The element types (of :class:`onnx.TensorProto.DataType`), where they can be told."""
        known = {name: tensor_type.elem_type for name, tensor_type in self._inferred.items()}
        known.update((name, tensor.data_type) for name, tensor in self.initializers.items())
        return {name: dtype for name, dtype in known.items() if dtype}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shapes of tensors, where their numbers of axes can be told."""
        known = {
            name: _shape(tensor_type.shape)
            for name, tensor_type in self._inferred.items()
            if tensor_type.HasField("shape")
        }
        known.update((name, tuple(tensor.dims)) for name, tensor in self.initializers.items())
        return known

    @cached_property
    def _inferred(self) -> Mapping[str, onnx.TypeProto.Tensor]:
        # With the values of shapes that are computed from shapes, as the runtime has them.
        return inferred_types(self, self.nodes, data_prop=True)

    def skeleton(self, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
        """A model of some nodes with its large initializers as inputs, without their data."""
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(self.template)
        skeleton.graph.node.extend(nodes)
        for name, tensor in self.initializers.items():
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if not external and is_small(tensor, _SMALL_BYTES):
                skeleton.graph.initializer.append(tensor)
            elif name not in self.inputs:
                skeleton.graph.input.append(
                    onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
                )
        return skeleton

    def is_float(self, name: str) -> bool | None:
        """Whether a tensor is of 32-bit floats; None if that is not known."""
        dtype = self.dtypes.get(name)
        return None if dtype is None else dtype == onnx.TensorProto.FLOAT

    def is_weight(self, name: str) -> bool:
        """Whether a tensor is a constant of 32-bit floats that can be quantized."""
        return self.is_constant(name) and bool(self.is_float(name)) and self.is_finite(name)

    def is_finite(self, name: str) -> bool:
        """Whether an initializer has no NaN and no infinite value.

        Those in other files are taken to be so: reading them all would take long.
        """
        if name not in self._finite:
            tensor = self.initializers[name]
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            self._finite[name] = external or bool(np.isfinite(self.array(name)).all())
        return self._finite[name]

    @cached_property
    def _finite(self) -> dict[str, bool]:
        return {}

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initializer whose value callers cannot replace."""
        return name in self.initializers and name not in self.inputs

    def array(self, name: str) -> NDArray[Any]:
        """The value of an initializer; read from its file if it is in one."""
        return tensor_array(self.initializers[name], self.base_dir)

    def only_reader(self, name: str) -> int | None:
        """The position of the one node that reads a tensor; None if others can see it too."""
        readers = self.readers.get(name, ())
        if len(readers) != 1 or name in self.outputs or name in self.captured:
            return None
        return readers[0][0]

    def to_model(self) -> onnx.ModelProto:
        """The graph as a model of its own; external data are still only referred to."""
        return assemble(self.template, self.nodes, self.initializers)


def inferred_types(
    graph: Graph, nodes: Iterable[onnx.NodeProto], *, data_prop: bool = False
) -> Mapping[str, onnx.TypeProto.Tensor]:
    """The types and shapes of the tensors of some nodes, as far as they can be inferred.

    Args:
        graph:
            The graph.
        nodes:
            Some of its nodes.
        data_prop:
            Whether shapes that are computed are followed.
    """
    skeleton = graph.skeleton(nodes)
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=data_prop).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type for value in values}


def assemble(
    template: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    initializers: Mapping[str, Source],
    *,
    outside: MutableMapping[str, Source] | None = None,
) -> onnx.ModelProto:
    """Make a model of a template, nodes, and those initializers that are used.

    Args:
        template:
            A model without nodes and initializers.
        nodes:
            The nodes.
        initializers:
            The initializers, as tensors or arrays, by the name that each is to have.
        outside:
            Where the large initializers are put, for a compact model; None for a whole one.
    """
    model = onnx.ModelProto()
    model.CopyFrom(template)
    graph = model.graph
    nodes = list(nodes)
    graph.node.extend(nodes)
    inputs = {value.name for value in graph.input}
    used = inputs.union(value.name for value in graph.output)
    for node in nodes:
        used.update(node.input)
        used.update(captured_names(node))
    for name, value in initializers.items():
        if name in used:
            add_initializer(graph, name, value, None if name in inputs else outside)
    domains = {entry.domain for entry in model.opset_import}
    if CONTRIB not in domains and any(node.domain == CONTRIB for node in graph.node):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return model


def tensor_array(tensor: onnx.TensorProto, base_dir: Path | None) -> NDArray[Any]:
    """The value of a tensor as an array that owns nothing of the tensor."""
    return np.asarray(onnx.numpy_helper.to_array(tensor, str(base_dir or "")))


def is_small(tensor: onnx.TensorProto, limit: int) -> bool:
    """Whether a tensor takes at most so many bytes as a message; its data are in it."""
    item = ITEM_BYTES.get(tensor.data_type)
    # Asked for its size, protobuf writes the message.
    if tensor.HasField("raw_data") and item and item * math.prod(tensor.dims) > limit:
        return False
    return int(tensor.ByteSize()) <= limit


def _shape(shape: onnx.TensorShapeProto) -> Shape:
    return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in shape.dim)


def unused_name(wish: str, taken: Container[str]) -> str:
    """A name that is not taken: the wished one, or the first with a number behind it."""
    candidate, number = wish, 0
    while candidate in taken:
        number += 1
        candidate = f"{wish}_{number}"
    return candidate


def take_name(wish: str, taken: set[str]) -> str:
    """A name that was not taken, as :func:`unused_name` gives it; from now on it is."""
    name = unused_name(wish, taken)
    taken.add(name)
    return name


def name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Give each node a name of its own: the old one if it can be, and the same ones every time.

    A node without a name is called after its op type and its position; one whose name another node
    has already gets a number behind it.
    """
    nodes = list(nodes)
    taken = {node.name for node in nodes}
    used: set[str] = set()
    for i, node in enumerate(nodes):
        if not node.name or node.name in used:
            node.name = take_name(node.name or f"{node.op_type}_{i}", taken)
        used.add(node.name)
        for graph in subgraphs(node):
            name_nodes(graph.node)


def node_attributes(node: onnx.NodeProto) -> dict[str, AttributeValue]:
    """The attributes of a node as Python values; strings are bytes."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured_names(node: onnx.NodeProto) -> frozenset[str]:
    """The tensors that the subgraphs of a node read from outside."""
    return frozenset().union(*(_free_names(graph) for graph in subgraphs(node)))


def _free_names(graph: onnx.GraphProto) -> frozenset[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own.update(sparse.values.name for sparse in graph.sparse_initializer)
    read: set[str] = {value.name for value in graph.output}
    for node in graph.node:
        own.update(node.output)
        read.update(node.input)
        read.update(captured_names(node))
    return frozenset(read - own - {""})


def _names(node: onnx.NodeProto) -> Iterator[str]:
    yield node.name
    yield from node.input
    yield from node.output
    for graph in subgraphs(node):
        for value in (*graph.input, *graph.output, *graph.initializer):
            yield value.name
        for inner in graph.node:
            yield from _names(inner)
