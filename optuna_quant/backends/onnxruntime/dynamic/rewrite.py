"""Collecting the nodes and initializers of a rewritten model; part of :mod:`.dynamic`."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import MutableMapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper

from optuna_quant.backends.onnxruntime.calibration.accumulator import fit_accumulator
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import take_name
from optuna_quant.backends.onnxruntime.model.tensor_references import add_initializer
from optuna_quant.backends.onnxruntime.model.weights import quantized
from optuna_quant.backends.ranges.ranges import quantized_limits


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.tensor_references import Source
    from optuna_quant.space.config import TensorConfig

LoadTensor: TypeAlias = Callable[[onnx.TensorProto], "NDArray[Any]"]
QuantizedWeight: TypeAlias = "tuple[NDArray[Any], NDArray[np.float32], NDArray[Any]]"
"""The integers, the scale and the zero point."""
WeightCache: TypeAlias = MutableMapping[Hashable, QuantizedWeight]
Names: TypeAlias = tuple[str, str, str]
"""The tensors that hold the integers, the scale and the zero point."""

CONTRIB = "com.microsoft"


class Rewrite:
    """A model in the course of being rewritten; it changes only in :meth:`commit`.

    Args:
        model:
            The model.
        opset:
            The version of its standard operators.
        reduce_range:
            Whether weights use 7 bits only.
        load:
            Gives the value of an initializer.
        cache:
            Where quantized weights are kept.
        outside:
            Where large initializers are put; None to have them in the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        opset: int,
        reduce_range: bool,
        load: LoadTensor,
        cache: WeightCache | None,
        outside: MutableMapping[str, Source] | None = None,
    ) -> None:
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._model = model
        self._graph = Graph(model, tuple(model.graph.node), initializers, opset)
        self._names = set(self._graph.names)
        self._pinned = self._graph.captured | self._graph.outputs
        self._reduce_range = reduce_range
        self._load = load
        self._cache: WeightCache = {} if cache is None else cache
        self._outside = outside
        self._added: dict[str, Source] = {}
        self._stored: dict[Hashable, Names] = {}
        self._activations: dict[str, Names] = {}
        self._replaced: set[str] = set()

    def commit(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Give the model these nodes and the new initializers, and remove unused weights."""
        graph = self._model.graph
        del graph.node[:]
        graph.node.extend(nodes)
        for name, value in self._added.items():
            add_initializer(graph, name, value, self._outside)
        unused = self._replaced - self._pinned.union(*(node.input for node in graph.node))
        for i in reversed(range(len(graph.initializer))):
            if graph.initializer[i].name in unused:
                del graph.initializer[i]
        known = {opset.domain for opset in self._model.opset_import}
        if CONTRIB not in known and any(node.domain == CONTRIB for node in graph.node):
            self._model.opset_import.append(helper.make_opsetid(CONTRIB, 1))

    # Names, nodes and constants.

    def name(self, wish: str) -> str:
        """A name that nothing else has."""
        return take_name(wish, self._names)

    def node(
        self,
        op_type: str,
        op: onnx.NodeProto,
        role: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        **attributes: Any,
    ) -> onnx.NodeProto:
        """A node that has a part in an op's work, and a name that says so."""
        name = self.name(f"{op.name}_{role}")
        return helper.make_node(op_type, inputs, outputs, name, **attributes)

    def constant(self, wish: str, value: Source) -> str:
        """Add an initializer and return its name."""
        name = self.name(wish)
        self._added[name] = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
        return name

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initializer that callers cannot replace."""
        return self._graph.is_constant(name)

    def shape(self, constant: str) -> tuple[int, ...]:
        """The shape of an initializer."""
        return tuple(self._graph.initializers[constant].dims)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """The shape of an initializer, new or old; None for any other tensor."""
        added = self._added.get(name)
        if added is not None:
            return added.shape if isinstance(added, np.ndarray) else tuple(added.dims)
        return self.shape(name) if self.is_constant(name) else None

    # Weights.

    def replace_weight(self, name: str) -> None:
        """Remove an initializer at the end if nothing reads it any more."""
        self._replaced.add(name)

    def weight_array(self, node: onnx.NodeProto, position: int) -> NDArray[np.float32]:
        """The value of a constant input.

        Raises:
            ValueError:
                If that input is not a constant of 32-bit floats.
        """
        name = node.input[position]
        op = f"Op {node.name!r} ({node.op_type})"
        if not self.is_constant(name):
            raise ValueError(
                f"{op} cannot run in dynamic mode: its input {position}, {name!r}, is not a "
                "constant."
            )
        tensor = self._graph.initializers[name]
        if tensor.data_type != onnx.TensorProto.FLOAT:
            dtype = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise ValueError(
                f"{op} cannot run in dynamic mode: its input {position}, {name!r}, is of type "
                f"{dtype}, not FLOAT."
            )
        self._replaced.add(name)
        return np.asarray(self._load(tensor))

    def check_granularity(
        self, node: onnx.NodeProto, config: TensorConfig, *, per_channel: bool
    ) -> None:
        """Check that the runtime has a kernel for weights with so many scales.

        Raises:
            ValueError:
                If it has none.
        """
        known = ("per_tensor", "per_channel") if per_channel else ("per_tensor",)
        if config.granularity not in known:
            raise ValueError(
                f"Op {node.name!r} ({node.op_type}) cannot have a weight of {config.label} in "
                f"dynamic mode: with {config.scheme} it can be {' or '.join(known)}."
            )

    def quantize_weight(
        self,
        name: str,
        array: NDArray[np.float32],
        config: TensorConfig,
        axis: int | None,
        *,
        reduced: tuple[int, ...] = (),
    ) -> QuantizedWeight:
        """The quantized value of a weight; a symmetric one has a single zero point.

        Args:
            name:
                Its name.
            array:
                Its value, maybe in another shape.
            config:
                How it is quantized.
            axis:
                Its channel axis; None to quantize it as a whole.
            reduced:
                The axes that an integer product sums over; none for a table.
        """
        key = (name, array.shape, config, axis, reduced, self._reduce_range)
        if key not in self._cache:
            try:
                weight = quantized(array, config, axis, reduce_range=self._reduce_range)
            except ValueError as error:
                raise ValueError(f"Tensor {name!r} cannot be quantized: {error}") from error
            if reduced:
                weight = fit_accumulator(weight, lambda: array, reduced=reduced)
            self._cache[key] = weight.values, weight.scale, weight.zero_point
        values, scale, zero_point = self._cache[key]
        if config.scheme == "sym" and zero_point.ndim:
            zero_point = np.asarray(quantized_middle(config.dtype), dtype=zero_point.dtype)
        return values, scale, zero_point

    def store(self, name: str, kind: Hashable, weight: QuantizedWeight) -> Names:
        """Add a quantized weight; ops that quantize one weight in one way share it."""
        if (name, kind) not in self._stored:
            values, scale, zero_point = weight
            self._stored[name, kind] = (
                self.constant(f"{name}_quantized", values),
                self.constant(f"{name}_scale", scale),
                self.constant(f"{name}_zero_point", zero_point),
            )
        return self._stored[name, kind]

    def table(self, node: onnx.NodeProto, position: int, config: TensorConfig) -> Names:
        """A constant input, quantized per tensor."""
        self.check_granularity(node, config, per_channel=False)
        name, array = node.input[position], self.weight_array(node, position)
        weight = self.quantize_weight(name, array, config, None)
        return self.store(name, (config, None), weight)

    # Activations and products.

    def activation(self, name: str) -> tuple[list[onnx.NodeProto], Names]:
        """A tensor quantized at run time, and the node for it if there is none yet."""
        if name in self._activations:
            return [], self._activations[name]
        names = (
            self.name(f"{name}_dynamic_quantized"),
            self.name(f"{name}_dynamic_scale"),
            self.name(f"{name}_dynamic_zero_point"),
        )
        self._activations[name] = names
        node_name = self.name(f"{name}_DynamicQuantizeLinear")
        return [helper.make_node("DynamicQuantizeLinear", [name], names, node_name)], names

    def product(
        self, op: onnx.NodeProto, op_type: str, activation: Names, weight: Names, output: str
    ) -> list[onnx.NodeProto]:
        """The integer product of an activation and a weight, scaled back to floats."""
        integers, floats, scale = (
            self.name(f"{op.name}_{part}") for part in ("integers", "floats", "scale")
        )
        inputs = [activation[0], weight[0], activation[2], weight[2]]
        return [
            helper.make_node(op_type, inputs, [integers], op.name),
            self.node("Cast", op, "cast", [integers], [floats], to=onnx.TensorProto.FLOAT),
            self.node("Mul", op, "scales", [activation[1], weight[1]], [scale]),
            self.node("Mul", op, "rescale", [floats, scale], [output]),
        ]


def quantized_middle(dtype: str) -> int:
    """The zero point of the symmetric scheme."""
    low, high = quantized_limits(dtype, "sym")
    return (low + high) // 2


def gemm_bias(
    rewrite: Rewrite, node: onnx.NodeProto, beta: float, columns: int, nodes: list[onnx.NodeProto]
) -> str | None:
    """The tensor to add to the product of a Gemm; None if there is none.

    Args:
        rewrite:
            The rewrite.
        node:
            The Gemm.
        beta:
            What its bias is multiplied with.
        columns:
            The columns of the product.
        nodes:
            Nodes that compute the tensor are appended here.
    """
    name = node.input[2] if len(node.input) > 2 else ""
    if not name or beta == 0.0:
        return None
    if rewrite.is_constant(name):
        shape = rewrite.shape(name)
        row = shape[-1:] == (columns,) and set(shape[:-1]) == {1}
        if beta == 1.0 and not row:
            return name
        array = rewrite.weight_array(node, 2) * np.float32(beta)
        # The runtime fuses the addition of a vector only.
        return rewrite.constant(f"{node.name}_C", array.reshape(-1) if row else array)
    if beta == 1.0:
        return name
    scaled, factor = rewrite.name(f"{node.name}_C"), np.float32(beta)
    factor_name = rewrite.constant(f"{node.name}_beta", np.asarray(factor))
    nodes.append(rewrite.node("Mul", node, "beta", [name, factor_name], [scaled]))
    return scaled
