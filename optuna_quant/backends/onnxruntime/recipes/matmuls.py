"""The recipe ``gemm_to_matmul``: each Gemm as a MatMul and an Add."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import take_name
from optuna_quant.backends.onnxruntime.recipes.recipe import GraphRecipe
from optuna_quant.backends.onnxruntime.recipes.recipe import Switch


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts
    from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs


class GemmToMatMul(Switch, GraphRecipe):
    """Quantize a MatMul in place of each Gemm.

    neural-compressor does so by default, because ONNX Runtime had no integer kernel for a
    Gemm; it has one now, and a MatMul in static mode is written as a Gemm where that is possible.
    """

    name = "gemm_to_matmul"
    in_all = False

    def reason_against(self, facts: ModelFacts) -> str | None:
        if not any(is_rewritten(node, facts.graph) for node in facts.graph.nodes):
            return "the model has no Gemm that can be written as a MatMul"
        return None

    def rewrite(self, graph: Graph, value: str, runs: RunsGraphs) -> Graph:
        return gemms_as_matmuls(graph)


def gemms_as_matmuls(graph: Graph) -> Graph:
    """A graph that computes the same with a MatMul and an Add in place of each Gemm.

    The MatMul has the name of the Gemm. A weight that is transposed, or has a factor, becomes a
    new constant. Left as it is a Gemm that transposes its first operand, and one with a factor or
    a transposition of something that is not constant.

    Args:
        graph:
            The graph, which is not changed.
    """
    rewrite = _Rewrite(graph)
    nodes = [new for node in graph.nodes for new in rewrite.nodes_for(node)]
    return replace(
        graph,
        nodes=tuple(nodes),
        initializers=MappingProxyType(rewrite.initializers),
        recipes=MappingProxyType(rewrite.recipes),
    )


def is_rewritten(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether a node is a Gemm that becomes a MatMul."""
    if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx"):
        return False
    attributes = node_attributes(node)
    if attributes.get("transA", 0):
        return False
    turned = attributes.get("transB", 0) or attributes.get("alpha", 1.0) != 1.0
    if turned and not _is_changeable(node.input[1], graph):
        return False
    if attributes.get("beta", 1.0) == 1.0 or len(node.input) < 3 or not node.input[2]:
        return True
    return _is_changeable(node.input[2], graph)


def _is_changeable(name: str, graph: Graph) -> bool:
    return graph.is_constant(name) and bool(graph.is_float(name))


class _Rewrite:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._names = set(graph.names)
        self._made: dict[tuple[str, bool, float], str] = {}
        self.initializers = dict(graph.initializers)
        self.recipes = dict(graph.recipes)

    def nodes_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What is written in place of a node."""
        if not is_rewritten(node, self._graph):
            return [node]
        attributes = node_attributes(node)
        alpha, beta = (float(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        right = self._constant(node.input[1], bool(attributes.get("transB", 0)), alpha)
        bias = node.input[2] if len(node.input) > 2 and beta != 0.0 else ""
        if not bias:
            return [_node("MatMul", [node.input[0], right], node.output[0], node.name)]
        product = self._name(f"{node.output[0]}_product")
        inputs = [product, self._constant(bias, False, beta)]
        return [
            _node("MatMul", [node.input[0], right], product, node.name),
            _node("Add", inputs, node.output[0], self._name(f"{node.name}_Add")),
        ]

    def _constant(self, name: str, turned: bool, factor: float) -> str:
        """An operand, transposed and multiplied with a factor."""
        if not turned and factor == 1.0:
            return name
        key = name, turned, factor
        if key not in self._made:
            array = self._graph.array(name)
            array = array.T if turned else array
            self._made[key] = new = self._name(f"{name}_transposed" if turned else f"{name}_times")
            self._add(new, np.asarray(array * np.float32(factor) if factor != 1.0 else array))
            if factor == 1.0:
                # Where the model has the original as well it need not have both.
                self.recipes[new] = _node(
                    "Transpose", [name], new, self._name(f"{new}_Transpose"), perm=[1, 0]
                )
        return self._made[key]

    def _add(self, name: str, array: NDArray[np.float32]) -> None:
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.initializers[name] = tensor

    def _name(self, wish: str) -> str:
        return take_name(wish, self._names)


def _node(
    op_type: str, inputs: list[str], output: str, name: str, **attributes: Any
) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs, [output], name, **attributes)
