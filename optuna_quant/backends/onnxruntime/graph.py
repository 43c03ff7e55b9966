"""A read-only view of a model's graph: who makes a tensor, who reads it, of what type it is."""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np
import onnx


if TYPE_CHECKING:
    from numpy.typing import NDArray


Shape: TypeAlias = "tuple[int | None, ...]"
"""The sizes of a tensor's axes; None for those that are not known."""

CONTRIB = "com.microsoft"
"""The domain of the runtime's own operators."""

# Initializers up to this size stay in the model for shape inference, which reads the small ones.
_SMALL_BYTES = 1 << 12


@dataclass(frozen=True, eq=False)
class Graph:
    """The main graph of a model. Nobody changes its nodes and tensors; build new ones instead.

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
    """

    template: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    initializers: Mapping[str, onnx.TensorProto]
    opset: int
    base_dir: Path | None = None

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
        for node in self.nodes:
            found.update(_names(node))
        for sparse in self.template.graph.sparse_initializer:
            found.add(sparse.values.name)
        return frozenset(found)

    @cached_property
    def dtypes(self) -> Mapping[str, int]:
        """The element types (of :class:`onnx.TensorProto.DataType`), where they can be told."""
        known = {value.name: value.type.tensor_type.elem_type for value in self._inferred}
        known.update((name, tensor.data_type) for name, tensor in self.initializers.items())
        return {name: dtype for name, dtype in known.items() if dtype}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shapes of tensors, where their numbers of axes can be told."""
        known = {
            value.name: _shape(value.type.tensor_type.shape)
            for value in self._inferred
            if value.type.tensor_type.HasField("shape")
        }
        known.update((name, tuple(tensor.dims)) for name, tensor in self.initializers.items())
        return known

    @cached_property
    def _inferred(self) -> Sequence[onnx.ValueInfoProto]:
        # With the values of shapes that are computed from shapes, as the runtime has them.
        graph = onnx.shape_inference.infer_shapes(self._skeleton(), data_prop=True).graph
        return (*graph.input, *graph.value_info, *graph.output)

    def _skeleton(self) -> onnx.ModelProto:
        """The model with its large initializers as inputs: inference does not need their data."""
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(self.template)
        skeleton.graph.node.extend(self.nodes)
        for name, tensor in self.initializers.items():
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if not external and tensor.ByteSize() <= _SMALL_BYTES:
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


def assemble(
    template: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    initializers: Mapping[str, onnx.TensorProto | NDArray[Any]],
) -> onnx.ModelProto:
    """Make a model of a template, nodes, and those initializers that are used.

    Args:
        template:
            A model without nodes and initializers.
        nodes:
            The nodes.
        initializers:
            The initializers, as tensors or arrays, by the name that each is to have.
    """
    model = onnx.ModelProto()
    model.CopyFrom(template)
    graph = model.graph
    graph.node.extend(nodes)
    used = {value.name for value in graph.output}
    used.update(value.name for value in graph.input)
    for node in graph.node:
        used.update(node.input)
        used.update(captured_names(node))
    for name, value in initializers.items():
        if name in used:
            tensor = graph.initializer.add()
            if isinstance(value, onnx.TensorProto):
                tensor.CopyFrom(value)
            else:
                tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                tensor.dims.extend(value.shape)
                tensor.raw_data = value.tobytes()
            tensor.name = name
    domains = {entry.domain for entry in model.opset_import}
    if CONTRIB not in domains and any(node.domain == CONTRIB for node in graph.node):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return model


def tensor_array(tensor: onnx.TensorProto, base_dir: Path | None) -> NDArray[Any]:
    """The value of a tensor as an array that owns nothing of the tensor."""
    return np.asarray(onnx.numpy_helper.to_array(tensor, str(base_dir or "")))


def _shape(shape: onnx.TensorShapeProto) -> Shape:
    return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in shape.dim)


def unused_name(wish: str, taken: Container[str]) -> str:
    """A name that is not taken: the wished one, or the first with a number behind it."""
    candidate, number = wish, 0
    while candidate in taken:
        number += 1
        candidate = f"{wish}_{number}"
    return candidate


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
            node.name = unused_name(node.name or f"{node.op_type}_{i}", taken)
            taken.add(node.name)
        used.add(node.name)
        for graph in subgraphs(node):
            name_nodes(graph.node)


def node_attributes(node: onnx.NodeProto) -> dict[str, Any]:
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
