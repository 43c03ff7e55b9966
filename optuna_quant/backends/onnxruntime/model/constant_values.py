"""The values of constants that nodes compute from others, where they do not grow too large."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import TYPE_CHECKING
from typing import Any

import onnx
import onnxruntime

from optuna_quant.backends.onnxruntime.model.graph import inferred_types
from optuna_quant.backends.onnxruntime.model.graph import tensor_array


if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph


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


class ConstantValues:
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
        chain = chain_of(name, self._recipes, ())
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
            nodes.update((id(node), node) for node in chain_of(name, self._recipes, ()))
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


def constants_behind(name: str, recipes: Mapping[str, onnx.NodeProto]) -> set[str]:
    """The initializers that a tensor with a recipe is computed from."""
    chain = chain_of(name, recipes, ())
    return {read for node in chain for read in node.input if read and read not in recipes}


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """The size of a tensor's data in bytes, wherever they are."""
    return _nbytes(tensor.data_type, tensor.dims)


def _nbytes(data_type: int, dims: Iterable[int]) -> int:
    if data_type == onnx.TensorProto.STRING:
        return math.prod(dims)
    return math.prod(dims) * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def chain_of(
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


def _loaded(tensor: onnx.TensorProto, base_dir: Path | None) -> onnx.TensorProto:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    return onnx.numpy_helper.from_array(tensor_array(tensor, base_dir), tensor.name)
