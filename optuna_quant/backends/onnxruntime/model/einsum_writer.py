"""Writing Einsums that are products with a weight as MatMuls, which can be quantized."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.einsum_products import MatrixProduct
from optuna_quant.backends.onnxruntime.model.einsum_products import as_matrix_product
from optuna_quant.backends.onnxruntime.model.graph import node_attributes


class EinsumWriter:
    """Writes the nodes of a graph; Einsums with one weight get one matrix.

    The weight becomes a matrix by nodes of its own, which constant folding computes.

    Args:
        weights:
            The constants by name.
        new_name:
            Gives a name that is not taken, for a wish.

    Attributes:
        constants:
            The new constants, by name.
    """

    def __init__(
        self, weights: Mapping[str, onnx.TensorProto], new_name: Callable[[str], str]
    ) -> None:
        self._weights = weights
        self._new_name = new_name
        self._matrices: dict[tuple[str, MatrixProduct], str] = {}
        self.constants: dict[str, onnx.TensorProto] = {}

    def written(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that compute what a node does; that node alone where it is no such product."""
        product = self._product(node)
        if product is None:
            return [node]
        activation, output = node.input[0], node.output[0]
        nodes, matrix = self._matrix(node, product)
        if product.activation is not None:
            rows = self._new_name(f"{output}_rows")
            nodes.append(self._reshape(node, activation, product.activation, rows))
            activation = rows
        columns = output if product.output is None else self._new_name(f"{output}_columns")
        nodes.append(onnx.helper.make_node("MatMul", [activation, matrix], [columns], node.name))
        if product.output is not None:
            nodes.append(self._reshape(node, columns, product.output, output))
        return nodes

    def _product(self, node: onnx.NodeProto) -> MatrixProduct | None:
        if node.op_type != "Einsum" or node.domain not in ("", "ai.onnx") or len(node.input) != 2:
            return None
        weight = self._weights.get(node.input[1])
        if weight is None or math.prod(weight.dims) == 0:
            return None
        return as_matrix_product(node_attributes(node)["equation"].decode(), weight.dims)

    def _matrix(
        self, node: onnx.NodeProto, product: MatrixProduct
    ) -> tuple[list[onnx.NodeProto], str]:
        """The weight as a matrix, and the nodes that make it so where none do yet."""
        weight, nodes = node.input[1], []
        key = weight, MatrixProduct(product.order, product.matrix, None, None)
        if key in self._matrices:
            return [], self._matrices[key]
        if product.order != tuple(range(len(product.order))):
            turned = self._new_name(f"{weight}_turned")
            nodes.append(self._step("Transpose", node, [weight], turned, perm=product.order))
            weight = turned
        if len(product.order) > 2:
            matrix = self._new_name(f"{weight}_matrix")
            nodes.append(self._reshape(node, weight, product.matrix, matrix))
            weight = matrix
        self._matrices[key] = weight
        return nodes, weight

    def _reshape(
        self, node: onnx.NodeProto, tensor: str, shape: Sequence[int], output: str
    ) -> onnx.NodeProto:
        name = self._new_name(f"{output}_shape")
        self.constants[name] = onnx.numpy_helper.from_array(np.array(shape, np.int64), name)
        return self._step("Reshape", node, [tensor, name], output)

    def _step(
        self, op_type: str, node: onnx.NodeProto, inputs: Sequence[str], output: str, **kw: Any
    ) -> onnx.NodeProto:
        name = self._new_name(f"{node.name}_{op_type}")
        return onnx.helper.make_node(op_type, inputs, [output], name, **kw)
