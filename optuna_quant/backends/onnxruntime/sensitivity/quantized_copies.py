"""Quantized copies of ops, each of which reads what the op reads in the FP32 graph.

Each copy is taken from a candidate, with the pairs on what it reads and writes. So one run shows
what the quantization of each op does by itself: nothing is passed on from op to op, however far
off the candidate as a whole may be.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import NamedTuple

import onnx

from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.graph import assemble
from optuna_quant.backends.onnxruntime.model.graph import captured_names
from optuna_quant.backends.onnxruntime.model.graph import take_name
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source


# Operators that quantize what they read by themselves.
_QUANTIZING = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})


class Shown(NamedTuple):
    """What a copy shows: a tensor of the graph, as the quantization of an op makes it.

    Args:
        op:
            The op.
        tensor:
            The tensor's name in the graph.
        weights_alone:
            Whether only the op's weights are quantized, and what it reads and writes is not.
    """

    op: str
    tensor: str
    weights_alone: bool = False


@dataclass(frozen=True, eq=False)
class QuantizedCopies:
    """Quantized copies of ops of an FP32 graph.

    Args:
        nodes:
            What computes them.
        initializers:
            The constants that these read, by name.
        reads:
            The tensors of the graph that they read.
        tensors:
            The names of the copies. A tensor that could not be followed in the candidate is
            missing.
        without_weights:
            The ops of which no weights are quantized, of those that were to be copied with their
            weights alone.
    """

    nodes: Sequence[onnx.NodeProto]
    initializers: Mapping[str, Source]
    reads: Sequence[str]
    tensors: Mapping[Shown, str]
    without_weights: frozenset[str] = frozenset()

    def model(self, graph: Graph, dtypes: Mapping[str, int]) -> CompactModel:
        """A model of the copies alone, whose inputs are what they read.

        Args:
            graph:
                The FP32 graph.
            dtypes:
                The element types of what they read that is no input of the graph, by name.
        """
        template = onnx.ModelProto()
        template.CopyFrom(graph.template)
        for field in ("input", "output", "value_info"):
            template.graph.ClearField(field)
        given = [value for value in graph.template.graph.input if value.name in self.reads]
        template.graph.input.extend(given)
        for name in self.reads:
            if name not in graph.inputs:
                made = onnx.helper.make_tensor_value_info(name, dtypes[name], None)
                template.graph.input.append(made)
        outside: dict[str, Source] = {}
        proto = assemble(template, self.nodes, self.initializers, outside=outside)
        return CompactModel(proto, outside)


def quantized_copies(
    graph: Graph,
    candidate: CompactModel,
    ops: Mapping[str, Iterable[str]],
    *,
    with_weights_alone: bool = False,
) -> QuantizedCopies:
    """Copy ops of a candidate.

    Args:
        graph:
            The FP32 graph.
        candidate:
            A model that was built from it: with the names of its tensors where they carry floats,
            and new names for everything else.
        ops:
            The tensors that show the result of each op: its outputs, or those of the activation
            function behind it where the op is quantized there.
        with_weights_alone:
            Whether the ops are also copied with their weights alone quantized.
    """
    copier = _Copier(graph, candidate.proto)
    for op, tensors in ops.items():
        copier.copy(op, tensors)
        if with_weights_alone:
            copier.copy(op, tensors, weights_alone=True)
    constants: dict[str, Source] = {
        tensor.name: candidate.outside[tensor.name] if is_reference(tensor) else tensor
        for tensor in candidate.proto.graph.initializer
    }
    constants.update(graph.initializers)
    made = {name for node in copier.nodes for name in node.output}
    read = {name for node in copier.nodes for name in (*node.input, *captured_names(node))}
    return QuantizedCopies(
        copier.nodes,
        {name: source for name, source in constants.items() if name in read},
        sorted(n for n in read - made - {""} if n in graph.inputs or n not in constants),
        copier.copies,
        frozenset(copier.without_weights),
    )


class _Copier:
    """Copies what makes tensors of a candidate."""

    def __init__(self, graph: Graph, candidate: onnx.ModelProto) -> None:
        self._graph = graph
        self._taken = {*graph.names, ""}
        self._outputs = {node.name: set(node.output) for node in graph.nodes}
        self._producer: dict[str, onnx.NodeProto] = {}
        # The pairs at tensors that are quantized where they are made, by tensor and by integers.
        self._made: dict[str, onnx.NodeProto] = {}
        self._integers: dict[str, onnx.NodeProto] = {}
        for node in candidate.graph.node:
            self._producer.update((name, node) for name in node.output if name)
            self._taken.update((*node.input, *node.output))
            is_new = node.op_type == "DequantizeLinear" and node.name not in self._outputs
            if is_new and node.output[0] in graph.producer:
                self._made[node.output[0]] = self._integers[node.input[0]] = node
        self.nodes: list[onnx.NodeProto] = []
        self.copies: dict[Shown, str] = {}
        self.without_weights: set[str] = set()

    def copy(self, op: str, tensors: Iterable[str], *, weights_alone: bool = False) -> None:
        tensors = list(tensors)
        inner = self._outputs[op].union(tensors)
        copied: dict[str, str] = {}
        for tensor in tensors:
            before = len(self.nodes)
            try:
                copy = self._copy(tensor, inner, copied, weights_alone)
            except KeyError:
                del self.nodes[before:]
                continue
            added = self.nodes[before:]
            if weights_alone and not any(n.op_type == "DequantizeLinear" for n in added):
                del self.nodes[before:]
                self.without_weights.add(op)
            else:
                self.copies[Shown(op, tensor, weights_alone)] = copy

    def _copy(
        self, name: str, inner: set[str], copied: dict[str, str], weights_alone: bool
    ) -> str:
        """The copy of a tensor; the tensor itself where that is what the op reads in FP32."""
        if name in copied:
            return copied[name]
        if not name or not self._is_computed(name):
            return name
        pair = self._integers.get(name)
        if pair is not None and pair.output[0] not in inner:
            # An op that reads integers as they are.
            if weights_alone:
                raise KeyError(name)
            self._add("QuantizeLinear", [pair.output[0], *pair.input[1:]], [name], pair, copied)
        elif name in self._graph.producer and name not in inner:
            pair = self._made.get(name)
            if pair is None or weights_alone:
                return name
            integers = self._copy(pair.input[0], inner, copied, weights_alone)
            self._add(pair.op_type, [integers, *pair.input[1:]], [name], pair, copied)
        else:
            node = self._producer[name]
            if weights_alone and node.op_type in _QUANTIZING:
                raise KeyError(name)
            floats = self._behind_pair(node) if weights_alone else None
            if floats is not None:
                copied[name] = self._copy(floats, inner, copied, weights_alone)
                return copied[name]
            inputs = [self._copy(other, inner, copied, weights_alone) for other in node.input]
            self._add(node.op_type, inputs, node.output, node, copied)
        return copied[name]

    def _behind_pair(self, node: onnx.NodeProto) -> str | None:
        """What a pair quantizes, if this is the end of one; a weight is quantized already."""
        if node.op_type != "DequantizeLinear":
            return None
        made = self._producer.get(node.input[0])
        return None if made is None or made.op_type != "QuantizeLinear" else made.input[0]

    def _is_computed(self, name: str) -> bool:
        return name in self._graph.producer or name in self._producer

    def _add(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Iterable[str],
        like: onnx.NodeProto,
        copied: dict[str, str],
    ) -> None:
        names = []
        for name in outputs:
            copied[name] = take_name(f"{name}_alone", self._taken) if name else ""
            names.append(copied[name])
        node = onnx.helper.make_node(op_type, inputs, names, domain=like.domain)
        node.attribute.extend(like.attribute)
        self.nodes.append(node)
