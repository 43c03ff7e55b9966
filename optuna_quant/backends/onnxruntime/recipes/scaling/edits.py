"""A graph with some of its constants replaced and nodes put before inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.graph import unused_name


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph


class GraphEdits:
    """Collects changes of a graph, which itself is not changed.

    A constant is replaced for one reader, under a new name; other readers keep the old one.

    Args:
        graph:
            The graph.
        suffix:
            What the names of new constants and nodes end with.
    """

    def __init__(self, graph: Graph, suffix: str) -> None:
        self._graph = graph
        self._suffix = suffix
        self._arrays: dict[tuple[int, int], NDArray[Any]] = {}
        self._scaled: dict[tuple[int, int], NDArray[Any]] = {}

    def constant(self, index: int, position: int) -> NDArray[Any]:
        """The constant that a node reads, as changed so far.

        Args:
            index:
                The node's position.
            position:
                Which of its inputs it is.
        """
        found = self._arrays.get((index, position))
        return (
            self._graph.array(self._graph.nodes[index].input[position]) if found is None else found
        )

    def replace(self, index: int, position: int, array: NDArray[Any]) -> None:
        """Let a node read another constant, of the type of the old one."""
        old = self.constant(index, position)
        self._arrays[index, position] = np.ascontiguousarray(array, dtype=old.dtype)

    def scale_input(self, index: int, position: int, factors: NDArray[Any]) -> None:
        """Let a node read a tensor multiplied by factors that are broadcast to it.

        Readers of one tensor with the same factors share the product.
        """
        self._scaled[index, position] = np.ascontiguousarray(factors, dtype=np.float32)

    def graph(self) -> Graph:
        """The changed graph."""
        taken = set(self._graph.names)
        initializers = dict(self._graph.initializers)
        products: dict[tuple[str, bytes], str] = {}
        nodes = []
        for i, node in enumerate(self._graph.nodes):
            places = [j for j in range(len(node.input)) if self._is_changed(i, j)]
            if not places:
                nodes.append(node)
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for j in places:
                name = node.input[j]
                if (i, j) in self._arrays:
                    copy.input[j] = self._added(self._arrays[i, j], name, initializers, taken)
                    continue
                factors = self._scaled[i, j]
                key = name, factors.tobytes()
                if key not in products:
                    products[key] = self._name(name, taken)
                    constant = self._added(factors, f"{name}_factors", initializers, taken)
                    product = products[key]
                    made = onnx.helper.make_node("Mul", [name, constant], [product], product)
                    nodes.append(made)
                copy.input[j] = products[key]
            nodes.append(copy)
        return replace(self._graph, nodes=tuple(nodes), initializers=initializers)

    def _is_changed(self, index: int, position: int) -> bool:
        return (index, position) in self._arrays or (index, position) in self._scaled

    def _added(
        self,
        array: NDArray[Any],
        name: str,
        initializers: dict[str, onnx.TensorProto],
        taken: set[str],
    ) -> str:
        new = self._name(name, taken)
        initializers[new] = onnx.numpy_helper.from_array(array, new)
        return new

    def _name(self, name: str, taken: set[str]) -> str:
        new = unused_name(f"{name}_{self._suffix}", taken)
        taken.add(new)
        return new
