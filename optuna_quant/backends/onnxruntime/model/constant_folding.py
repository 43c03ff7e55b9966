"""Computing once what depends on constants alone.

Exporters and converters put Reshape, Cast (weights stored as float16), Transpose, Concat, a weight
normalization and others between a weight and its reader. What they give is made an initializer, so
that the reader has a weight. How it came about is kept: where the value stays in floats and takes
more room than what it is computed from, the candidate has the nodes again.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import MutableMapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.constant_values import ConstantValues
from optuna_quant.backends.onnxruntime.model.constant_values import chain_of
from optuna_quant.backends.onnxruntime.model.constant_values import tensor_bytes
from optuna_quant.backends.onnxruntime.model.graph import captured_names
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import subgraphs
from optuna_quant.backends.onnxruntime.model.graph import unused_name
from optuna_quant.backends.onnxruntime.model.tensor_references import add_initializer
from optuna_quant.backends.onnxruntime.model.tensor_references import fill
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source


RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators that may give something else each time."""

QUANTIZING = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
"""Operators behind which a weight is already quantized; folding them would undo that."""


@dataclass(frozen=True, eq=False)
class Folding:
    """What is left of a graph once constants were folded.

    Args:
        nodes:
            The nodes that are left.
        values:
            The new initializers, by name.
        recipes:
            The node that computes each tensor that depends on constants alone, producers first.
    """

    nodes: Sequence[onnx.NodeProto]
    values: Mapping[str, onnx.TensorProto]
    recipes: Mapping[str, onnx.NodeProto]


def fold_constants(graph: Graph) -> Folding:
    """Compute what nodes of a graph read and what depends on constants alone.

    Left as they are: what is random, what subgraphs compute, operators of other domains than the
    standard one, weights that are already quantized, outputs of the graph, and what is too large
    or much larger than what it is computed from.

    Args:
        graph:
            The graph, its nodes sorted. It is not changed.
    """
    inner: dict[str, onnx.NodeProto] = {}
    outer = []
    for node in graph.nodes:
        if _is_foldable(node) and all(
            name in inner or graph.is_constant(name) for name in node.input if name
        ):
            inner.update((name, node) for name in node.output if name)
        else:
            outer.append(node)
    if not inner:
        return Folding(tuple(graph.nodes), {}, {})
    read = dict.fromkeys(name for node in outer for name in node.input if name in inner)
    chains = ConstantValues(graph, inner)
    values = chains.values([name for name in read if name not in graph.outputs])

    # What has no reader any more goes; subgraphs and outputs count as readers.
    alive = {*graph.outputs, *(name for node in outer for name in _reads(node))} - values.keys()
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.nodes):
        if node.output and node.output[0] in inner and inner[node.output[0]] is node:
            if alive.isdisjoint(node.output):
                continue
            alive.update(name for name in node.input if name not in values)
        kept.append(node)
    return Folding(tuple(reversed(kept)), values, inner)


def unfold(
    model: onnx.ModelProto, graph: Graph, outside: MutableMapping[str, Source] | None = None
) -> None:
    """Let a model compute the constants that take more room than what they are computed from.

    Args:
        model:
            A candidate; changed in place.
        graph:
            The graph that it was built from.
        outside:
            Where the data of large initializers are, of a compact model; None for a whole one.
    """
    if not graph.recipes:
        return
    used = {tensor.name: tensor for tensor in model.graph.initializer}
    folded = [name for name in graph.recipes if name in used and name in graph.initializers]
    # Tensors that are what they are in the graph; a new one may have taken an unused name.
    meant = {*graph.recipes, *(read for node in graph.recipes.values() for read in node.input)}
    same = {
        name
        for name in meant.intersection(used)
        if _is_same(used[name], graph.initializers.get(name), outside or {})
    }
    same.update(name for node in graph.nodes for name in node.output)
    taken = {name for node in model.graph.node for name in (node.name, *node.output)}
    taken.update(used)
    names: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    sources: dict[str, onnx.TensorProto] = {}
    dropped = set()
    for name in folded:
        if name not in same:
            continue
        chain = chain_of(name, graph.recipes, same)
        needed = {
            read: graph.initializers[read]
            for node in chain
            for read in node.input
            if read and read not in same and read not in graph.recipes
        }
        size = sum(node.ByteSize() for node in chain) + sum(map(tensor_bytes, needed.values()))
        if size >= tensor_bytes(used[name]):
            continue
        dropped.add(name)
        made = [output for node in chain for output in node.output if output and output != name]
        for new in (*needed, *made, *(node.name for node in chain)):
            if new not in names:
                names[new] = unused_name(new, taken)
                taken.add(names[new])
        sources.update(needed)
        nodes += chain
        same.update(needed, made)
    if not dropped:
        return
    for i in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[i].name in dropped:
            del model.graph.initializer[i]
    for name, tensor in sources.items():
        add_initializer(model.graph, names[name], tensor, outside)
    later = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        copy = model.graph.node.add()
        copy.CopyFrom(node)
        copy.name = names[node.name]
        del copy.input[:], copy.output[:]
        copy.input.extend(names.get(name, name) for name in node.input)
        copy.output.extend(names.get(name, name) for name in node.output)
    model.graph.node.extend(later)


def _is_same(
    tensor: onnx.TensorProto, own: onnx.TensorProto | None, outside: Mapping[str, Source]
) -> bool:
    if is_reference(tensor):
        source = outside[tensor.name]
        if isinstance(source, onnx.TensorProto):
            return source is own
        tensor = onnx.TensorProto()
        fill(tensor, "", source)
    return own is not None and (
        tensor.data_type == own.data_type
        and tensor.dims == own.dims
        and tensor.raw_data == own.raw_data
    )


def _is_foldable(node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM | QUANTIZING:
        return False
    if any(True for _ in subgraphs(node)):
        return False
    return not node_attributes(node).get("training_mode", 0)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    yield from captured_names(node)
