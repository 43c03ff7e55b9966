"""Models of any size, as exporters write them, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper


class _Graph:
    """Nodes and initializers in the making."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, scale: float) -> str:
        array = (self._rng.standard_normal(shape) * scale).astype(np.float32)
        return self.constant(name, array)

    def constant(self, name: str, array: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def linear(self, name: str, x: str, rows: int, columns: int) -> str:
        weight = self.weight(f"{name}.weight", rows, columns, scale=rows**-0.5)
        bias = self.weight(f"{name}.bias", columns, scale=0.02)
        product = self.node("MatMul", f"{name}/MatMul", [x, weight])
        return self.node("Add", f"{name}/Add", [bias, product])

    def norm(self, name: str, x: str, width: int) -> str:
        scale = self.constant(f"{name}.weight", np.ones(width, np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(width, np.float32))
        return self.node(
            "LayerNormalization", f"{name}/LayerNormalization", [x, scale, bias], axis=-1
        )

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], output: str, shape: Sequence[int | str]
    ) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [output], ["scores"], "scores"))
        result = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "generated", inputs, [result], self.initializers)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def transformer(
    *,
    layers: int = 5,
    width: int = 512,
    heads: int = 8,
    vocabulary: int = 3000,
    length: int = 32,
    classes: int = 16,
    seed: int = 0,
) -> onnx.ModelProto:
    """A sentence classifier: an embedding, encoder layers with attention, and a linear layer.

    Of each layer six MatMul have weights and two are products of activations. With the defaults
    it has 69 MB of 32-bit floats.

    Args:
        layers:
            How many encoder layers.
        width:
            The size of a token's vector.
        heads:
            The heads of the attention.
        vocabulary:
            How many tokens there are.
        length:
            The tokens of a sentence: input ``tokens`` is of shape ``(N, length)``, int64.
        classes:
            The classes: output ``scores`` is of shape ``(N, classes)``.
        seed:
            The seed of the weights.
    """
    g = _Graph(seed)
    table = g.weight("embedding.weight", vocabulary, width, scale=1.0)
    places = g.weight("positions", 1, length, width, scale=0.1)
    h = g.node("Gather", "embedding/Gather", [table, "tokens"], axis=0)
    h = g.node("Add", "positions/Add", [h, places])
    split = g.constant("split_shape", np.array([0, 0, heads, width // heads], np.int64))
    joined = g.constant("joined_shape", np.array([0, 0, width], np.int64))
    root = g.constant("root", np.array((width // heads) ** 0.5, np.float32))
    for layer in range(layers):
        name = f"/encoder/layer.{layer}"
        turned = {}
        for part, order in (
            ("query", [0, 2, 1, 3]),
            ("key", [0, 2, 3, 1]),
            ("value", [0, 2, 1, 3]),
        ):
            x = g.linear(f"{name}/{part}", h, width, width)
            x = g.node("Reshape", f"{name}/{part}/Reshape", [x, split])
            turned[part] = g.node("Transpose", f"{name}/{part}/Transpose", [x], perm=order)
        x = g.node("MatMul", f"{name}/scores/MatMul", [turned["query"], turned["key"]])
        x = g.node("Div", f"{name}/scores/Div", [x, root])
        x = g.node("Softmax", f"{name}/scores/Softmax", [x], axis=-1)
        x = g.node("MatMul", f"{name}/context/MatMul", [x, turned["value"]])
        x = g.node("Transpose", f"{name}/context/Transpose", [x], perm=[0, 2, 1, 3])
        x = g.node("Reshape", f"{name}/context/Reshape", [x, joined])
        x = g.linear(f"{name}/output", x, width, width)
        h = g.norm(f"{name}/norm1", g.node("Add", f"{name}/Add1", [x, h]), width)
        x = g.linear(f"{name}/up", h, width, 4 * width)
        x = g.node("Relu", f"{name}/Relu", [x])
        x = g.linear(f"{name}/down", x, 4 * width, width)
        h = g.norm(f"{name}/norm2", g.node("Add", f"{name}/Add2", [x, h]), width)
    h = g.node("ReduceMean", "pool/ReduceMean", [h], axes=[1], keepdims=0)
    weight = g.weight("head.weight", classes, width, scale=width**-0.5)
    bias = g.weight("head.bias", classes, scale=0.02)
    h = g.node("Gemm", "head/Gemm", [h, weight, bias], transB=1)
    tokens = helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["N", length])
    return g.model([tokens], h, ["N", classes])


def residual_blocks(
    ops: int, *, width: int = 32, classes: int = 16, seed: int = 0
) -> onnx.ModelProto:
    """A deep stack of small residual blocks of two linear layers each.

    Args:
        ops:
            How many MatMul it has; even.
        width:
            The size of all layers: input ``x`` is of shape ``(N, width)``.
        classes:
            The classes: output ``scores`` is of shape ``(N, classes)``.
        seed:
            The seed of the weights.
    """
    g = _Graph(seed)
    h = "x"
    for block in range(ops // 2):
        x = g.linear(f"/block.{block}/first", h, width, width)
        x = g.node("Relu", f"/block.{block}/Relu", [x])
        x = g.linear(f"/block.{block}/second", x, width, width)
        h = g.norm(f"/block.{block}/norm", g.node("Add", f"/block.{block}/Add", [x, h]), width)
    selection = g.constant("selection", np.eye(width, classes, dtype=np.float32))
    h = g.node("Einsum", "head/Einsum", [h, selection], equation="ij,jk->ik")
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", width])
    return g.model([x], h, ["N", classes])
