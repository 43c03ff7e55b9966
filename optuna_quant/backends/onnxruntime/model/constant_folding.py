"""Computing once what depends on constants alone.

Exporters and converters put Reshape, Cast (weights stored as float16), Transpose, Concat, a weight
normalization and others between a weight and its reader. What they give is made an initializer, so
that the reader has a weight. How it came about is kept: where the value stays in floats and takes
more room than what it is computed from, the candidate has the nodes again.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import MutableMapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING
from typing import Any

import onnx
import onnxruntime

from optuna_quant.backends.onnxruntime.model.graph import captured_names
from optuna_quant.backends.onnxruntime.model.graph import inferred_types
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import subgraphs
from optuna_quant.backends.onnxruntime.model.graph import tensor_array
from optuna_quant.backends.onnxruntime.model.graph import unused_name
from optuna_quant.backends.onnxruntime.model.tensor_references import add_initializer
from optuna_quant.backends.onnxruntime.model.tensor_references import fill
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference


if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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

# Operators that give no more elements than the largest of their inputs has, where the shape of
# the result cannot be inferred.
_NOT_GROWING = frozenset(
    {
        "Cast",
        "Compress",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)

# A result may be so many times as large as what it is computed from: 8 is unpacking 4-bit values
# to 32-bit floats. Small ones may be larger.
_MOST_GROWTH = 8
_SMALL_BYTES = 1 << 20
# What is folded is held in memory beside the model, and must fit into one message with it.
_MOST_BYTES = 1 << 30
_MOST_INLINE_BYTES = 7 << 28
# What is evaluated at once; all of it is copied for that.
_GROUP_BYTES = 1 << 28

_NUMBERS = frozenset(
    {
        onnx.TensorProto.BOOL,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT16,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.UINT16,
        onnx.TensorProto.UINT32,
        onnx.TensorProto.UINT64,
    }
)


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
    chains = _Chains(graph, inner)
    values = chains.values([name for name in read if name not in graph.outputs])

    # What nobody reads any more goes; subgraphs and outputs count as readers.
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
        chain = _chain(name, graph.recipes, same)
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


def constants_behind(name: str, recipes: Mapping[str, onnx.NodeProto]) -> set[str]:
    """The initializers that a tensor with a recipe is computed from."""
    chain = _chain(name, recipes, ())
    return {read for node in chain for read in node.input if read and read not in recipes}


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """The size of a tensor's data in bytes, wherever they are."""
    return _nbytes(tensor.data_type, tensor.dims)


def _nbytes(data_type: int, dims: Iterable[int]) -> int:
    if data_type == onnx.TensorProto.STRING:
        return math.prod(dims)
    return math.prod(dims) * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)


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


def _chain(
    name: str, recipes: Mapping[str, onnx.NodeProto], known: Collection[str]
) -> list[onnx.NodeProto]:
    """The nodes that compute a tensor from what is known and from constants, producers first."""
    chain: dict[int, onnx.NodeProto] = {}
    waiting = [(name, False)]
    while waiting:
        output, ready = waiting.pop()
        node = recipes[output]
        if ready:
            chain.setdefault(id(node), node)
        elif id(node) not in chain:
            waiting.append((output, True))
            needed = (read for read in node.input if read in recipes and read not in known)
            waiting.extend((read, False) for read in needed)
    return list(chain.values())


class _Chains:
    """Evaluates constants that nodes compute.

    Args:
        graph:
            The graph.
        recipes:
            The node that computes each of them, producers first.
    """

    def __init__(self, graph: Graph, recipes: Mapping[str, onnx.NodeProto]) -> None:
        self._graph = graph
        self._recipes = recipes
        self._types = self._infer()
        self._elements: dict[str, int | None] = {}
        for name, node in recipes.items():
            self._elements[name] = self._most_elements(name, node)

    def values(self, names: Iterable[str]) -> dict[str, onnx.TensorProto]:
        """The values of those tensors that may be folded."""
        inline = sum(len(tensor.raw_data) for tensor in self._graph.initializers.values())
        left = min(_MOST_BYTES, _MOST_INLINE_BYTES - inline)
        found: dict[str, onnx.TensorProto] = {}
        group: list[str] = []
        size = 0
        for name in names:
            cost = self._cost(name)
            if cost is None or cost[0] > left:
                continue
            left -= cost[0]
            if group and size + sum(cost) > _GROUP_BYTES:
                found.update(self._evaluated(group))
                group, size = [], 0
            group.append(name)
            size += sum(cost)
        found.update(self._evaluated(group))
        return found

    def _infer(self) -> Mapping[str, onnx.TypeProto.Tensor]:
        nodes = list({id(node): node for node in self._recipes.values()}.values())
        try:
            return inferred_types(self._graph, nodes, data_prop=True)
        except Exception:  # Shapes that are computed are beyond it now and then.
            return inferred_types(self._graph, nodes)

    def _most_elements(self, name: str, node: onnx.NodeProto) -> int | None:
        """The most elements that a tensor can have; None if that cannot be told."""
        inferred = self._types.get(name)
        if inferred is not None and inferred.HasField("shape"):
            dims = [axis.dim_value for axis in inferred.shape.dim if axis.HasField("dim_value")]
            if len(dims) == len(inferred.shape.dim):
                return int(math.prod(dims))
        if node.op_type not in _NOT_GROWING:
            return None
        sizes = [self._size(read) for read in node.input if read]
        return None if None in sizes else max((s for s in sizes if s is not None), default=None)

    def _size(self, name: str) -> int | None:
        if name in self._recipes:
            return self._elements[name]
        return int(math.prod(self._graph.initializers[name].dims))

    def _cost(self, name: str) -> tuple[int, int] | None:
        """The bytes of a tensor, and of what it is computed from; None not to fold it."""
        inferred = self._types.get(name)
        elements = self._elements[name]
        if inferred is None or elements is None or inferred.elem_type not in _NUMBERS:
            return None
        size = _nbytes(inferred.elem_type, [elements])
        chain = _chain(name, self._recipes, ())
        read = constants_behind(name, self._recipes)
        sources = sum(tensor_bytes(self._graph.initializers[r]) for r in read)
        most = max(_MOST_GROWTH * sources, _SMALL_BYTES)
        # Nor may anything on the way be much larger; an element takes 8 bytes at most.
        for node in chain:
            for output in filter(None, node.output):
                on_the_way = self._elements[output]
                if on_the_way is None or on_the_way * 8 > 2 * most:
                    return None
        return (size, sources) if size <= most and sources <= _MOST_BYTES else None

    def _evaluated(self, names: Sequence[str]) -> dict[str, onnx.TensorProto]:
        """The values of tensors; without those that the runtime cannot compute alone."""
        if not names:
            return {}
        try:
            arrays = self._run(names)
        except Exception:
            # Whatever the runtime does not take: the one that it is about is left as it was.
            if len(names) == 1:
                return {}
            return {key: value for name in names for key, value in self._evaluated([name]).items()}
        return {
            name: onnx.numpy_helper.from_array(array, name)
            for name, array in zip(names, arrays, strict=True)
        }

    def _run(self, names: Sequence[str]) -> list[NDArray[Any]]:
        model = onnx.ModelProto(ir_version=self._graph.template.ir_version)
        model.opset_import.extend(self._graph.template.opset_import)
        model.graph.name = "constants"
        nodes: dict[int, onnx.NodeProto] = {}
        for name in names:
            nodes.update((id(node), node) for node in _chain(name, self._recipes, ()))
        model.graph.node.extend(nodes.values())
        read = {r for node in nodes.values() for r in node.input if r and r not in self._recipes}
        for name in sorted(read):
            model.graph.initializer.append(
                _loaded(self._graph.initializers[name], self._graph.base_dir)
            )
        for name in names:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(list(names), {}))


def _loaded(tensor: onnx.TensorProto, base_dir: Path | None) -> onnx.TensorProto:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    return onnx.numpy_helper.from_array(tensor_array(tensor, base_dir), tensor.name)
