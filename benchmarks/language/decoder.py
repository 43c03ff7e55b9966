"""A decoder of the Llama family in plain ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper

from benchmarks.language.weight_file import WeightFile


Weights: TypeAlias = Callable[[str, tuple[int, ...]], np.ndarray]
"""Gives a weight, by its name and shape; that of a product is of shape ``[outputs, inputs]``."""

_HIDDEN = np.float32(-1e9)
"""What is added to the score of a later token."""


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """How large a decoder is.

    Args:
        layers:
            The layers.
        width:
            The values of a token.
        hidden:
            The values between the two products of a feed-forward part.
        heads:
            The heads of the attention.
        kv_heads:
            The heads of its keys and values; each serves ``heads / kv_heads`` heads.
        vocabulary:
            The tokens that there are.
        rope_base:
            The base of the rotary position embedding.
        epsilon:
            What is added to the mean square in normalizations.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    vocabulary: int
    rope_base: float = 1e4
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """The values of a head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """The values of all weights; the embedding table is also the weight of the output."""
        kv = self.kv_heads * self.head_width
        layer = 2 * self.width * (self.width + kv) + 3 * self.width * self.hidden + 2 * self.width
        return self.layers * layer + self.vocabulary * self.width + self.width


def write_decoder(
    folder: Path, shape: DecoderShape, weights: Weights, *, with_past: bool = False
) -> Path:
    """Write a decoder with its weights beside it.

    Its inputs are ``tokens``, int64 of shape ``(batch, length)``, and with ``with_past`` for each
    layer ``past_key.N`` and ``past_value.N`` of shape ``(batch, kv_heads, past, head_width)``.
    Its output is ``logits``, of shape ``(batch, length, vocabulary)``; then keys and values with
    those of the tokens, ``key.N`` and ``value.N``.

    Args:
        folder:
            Where to write ``model.onnx`` and ``model.data``; made if need be.
        shape:
            How large it is.
        weights:
            Gives the weights, each once.
        with_past:
            Whether it takes what earlier tokens gave.

    Returns:
        The model file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with WeightFile(folder / "model.data") as file:
        model = _Decoder(shape, weights, file, with_past=with_past).model()
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


class _Decoder:
    def __init__(
        self, shape: DecoderShape, weights: Weights, file: WeightFile, *, with_past: bool
    ) -> None:
        self._shape = shape
        self._weights = weights
        self._file = file
        self._with_past = with_past
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._results: list[onnx.ValueInfoProto] = []

    def model(self) -> onnx.ModelProto:
        shape = self._shape
        self._weight("embedding", shape.vocabulary, shape.width)
        h = self._node("Gather", "/embedding/Gather", ["embedding", "tokens"], axis=0)
        self._positions()
        for layer in range(shape.layers):
            name = f"/layers.{layer}"
            normal = self._norm(f"{name}/attention_norm", h)
            h = self._add(f"{name}/Add_1", h, self._attention(layer, normal))
            normal = self._norm(f"{name}/feed_forward_norm", h)
            h = self._add(f"{name}/Add_2", h, self._feed_forward(f"{name}/feed_forward", normal))
        h = self._norm("/norm", h)
        # Gemm takes the table as it is, so that the file has it once.
        rows = self._reshape("/output/rows", h, [-1, shape.width])
        scores = self._node("Gemm", "/output/Gemm", [rows, "embedding"], transB=1)
        lead = self._node("Shape", "/output/shape", ["tokens"])
        last = self._constant("last", np.array([shape.vocabulary]))
        whole = self._node("Concat", "/output/whole", [lead, last], axis=0)
        self._nodes.append(helper.make_node("Reshape", [scores, whole], ["logits"], "/logits"))
        return self._model()

    def _model(self) -> onnx.ModelProto:
        shape = self._shape
        tokens = helper.make_tensor_value_info(
            "tokens", onnx.TensorProto.INT64, ["batch", "length"]
        )
        logits = helper.make_tensor_value_info(
            "logits", onnx.TensorProto.FLOAT, ["batch", "length", shape.vocabulary]
        )
        inputs = [tokens]
        if self._with_past:
            inputs += [
                self._cache_info(f"past_{kind}.{layer}", "past")
                for layer in range(shape.layers)
                for kind in ("key", "value")
            ]
        graph = helper.make_graph(
            self._nodes,
            "decoder",
            inputs,
            [logits, *self._results],
            list(self._initializers.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _positions(self) -> None:
        """The angles of all tokens, and which tokens each one sees."""
        shape = self._shape
        zero, one = self._constant("zero", np.array(0)), self._constant("one", np.array(1))
        length = self._node("Shape", "/length/Shape", ["tokens"], start=1, end=2)
        length = self._squeezed("/length", length)
        past = zero
        if self._with_past:
            past = self._node("Shape", "/past/Shape", ["past_key.0"], start=2, end=3)
            past = self._squeezed("/past", past)
        end = self._node("Add", "/end", [past, length])
        own = self._node("Range", "/positions", [past, end, one])
        own = self._node(
            "Unsqueeze", "/positions/column", [own, self._constant("axis_1", np.array([1]))]
        )
        halves = np.arange(0, shape.head_width, 2, dtype=np.float64) / shape.head_width
        speed = self._constant("speed", (shape.rope_base**-halves).astype(np.float32)[None])
        turned = self._node("Cast", "/positions/float", [own], to=onnx.TensorProto.FLOAT)
        angles = self._node("Mul", "/angles", [turned, speed])
        self._cos = self._node("Cos", "/angles/Cos", [angles])
        self._sin = self._node("Sin", "/angles/Sin", [angles])
        every = self._node("Range", "/seen", [zero, end, one])
        visible = self._node("LessOrEqual", "/visible", [every, own])
        nothing = self._constant("nothing", np.float32(0))
        hidden = self._constant("hidden", np.float32(_HIDDEN))
        self._mask = self._node("Where", "/mask", [visible, nothing, hidden])

    def _attention(self, layer: int, x: str) -> str:
        shape, name = self._shape, f"/layers.{layer}/attention"
        kv, group, width = shape.kv_heads, shape.heads // shape.kv_heads, shape.head_width
        query = self._heads(f"{name}/query", x, shape.heads)
        query = self._rotated(f"{name}/query", query)
        query = self._reshape(f"{name}/query/grouped", query, [0, kv, group, -1, width])
        key = self._rotated(f"{name}/key", self._heads(f"{name}/key", x, kv))
        value = self._heads(f"{name}/value", x, kv)
        if self._with_past:
            key = self._with_earlier(layer, "key", key)
            value = self._with_earlier(layer, "value", value)
        axis = self._constant("axis_2", np.array([2]))
        key = self._node("Transpose", f"{name}/key/turned", [key], perm=[0, 1, 3, 2])
        key = self._node("Unsqueeze", f"{name}/key/grouped", [key, axis])
        value = self._node("Unsqueeze", f"{name}/value/grouped", [value, axis])
        root = self._constant("root", np.float32(width**-0.5))
        scores = self._node("MatMul", f"{name}/scores", [query, key])
        scores = self._node("Mul", f"{name}/scaled", [scores, root])
        scores = self._add(f"{name}/masked", scores, self._mask)
        parts = self._node("Softmax", f"{name}/Softmax", [scores], axis=-1)
        found = self._node("MatMul", f"{name}/context", [parts, value])
        found = self._reshape(f"{name}/heads", found, [0, shape.heads, -1, width])
        found = self._node("Transpose", f"{name}/turned", [found], perm=[0, 2, 1, 3])
        found = self._reshape(f"{name}/joined", found, [0, 0, shape.width])
        return self._linear(f"{name}/output", found, shape.width, shape.width)

    def _heads(self, name: str, x: str, heads: int) -> str:
        shape = self._shape
        x = self._linear(name, x, heads * shape.head_width, shape.width)
        x = self._reshape(f"{name}/split", x, [0, 0, heads, shape.head_width])
        return self._node("Transpose", f"{name}/heads", [x], perm=[0, 2, 1, 3])

    def _rotated(self, name: str, x: str) -> str:
        """Su et al., "RoFormer", 2021: pairs of values are turned by the token's angles."""
        first, second = f"{name}/first", f"{name}/second"
        self._nodes.append(
            helper.make_node("Split", [x], [first, second], f"{name}/Split", axis=-1)
        )
        turned = []
        for part, (a, b), operator in (
            ("real", (first, second), "Sub"),
            ("imaginary", (second, first), "Add"),
        ):
            by_cos = self._node("Mul", f"{name}/{part}/cos", [a, self._cos])
            by_sin = self._node("Mul", f"{name}/{part}/sin", [b, self._sin])
            turned.append(self._node(operator, f"{name}/{part}", [by_cos, by_sin]))
        return self._node("Concat", f"{name}/rotated", turned, axis=-1)

    def _with_earlier(self, layer: int, kind: str, x: str) -> str:
        result = f"{kind}.{layer}"
        self._nodes.append(
            helper.make_node("Concat", [f"past_{kind}.{layer}", x], [result], f"/{result}", axis=2)
        )
        self._results.append(self._cache_info(result, "seen"))
        return result

    def _cache_info(self, name: str, length: str) -> onnx.ValueInfoProto:
        dims = ["batch", self._shape.kv_heads, length, self._shape.head_width]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

    def _feed_forward(self, name: str, x: str) -> str:
        shape = self._shape
        gate = self._linear(f"{name}/gate", x, shape.hidden, shape.width)
        up = self._linear(f"{name}/up", x, shape.hidden, shape.width)
        sigmoid = self._node("Sigmoid", f"{name}/Sigmoid", [gate])
        gate = self._node("Mul", f"{name}/SiLU", [gate, sigmoid])
        x = self._node("Mul", f"{name}/gated", [gate, up])
        return self._linear(f"{name}/down", x, shape.width, shape.hidden)

    def _norm(self, name: str, x: str) -> str:
        two = self._constant("two", np.float32(2))
        epsilon = self._constant("epsilon", np.float32(self._shape.epsilon))
        mean = self._node("Pow", f"{name}/squares", [x, two])
        mean = self._node("ReduceMean", f"{name}/mean", [mean], axes=[-1], keepdims=1)
        root = self._node("Sqrt", f"{name}/root", [self._add(f"{name}/moved", mean, epsilon)])
        x = self._node("Div", f"{name}/normal", [x, root])
        weight = self._weight(name[1:].replace("/", "."), self._shape.width)
        return self._node("Mul", f"{name}/scaled", [x, weight])

    def _linear(self, name: str, x: str, outputs: int, inputs: int) -> str:
        stored = name[1:].replace("/", ".")
        array = self._weights(stored, (outputs, inputs)).T
        self._initializers[stored] = self._file.add(stored, array)
        return self._node("MatMul", f"{name}/MatMul", [x, stored])

    def _add(self, name: str, first: str, second: str) -> str:
        return self._node("Add", name, [first, second])

    def _squeezed(self, name: str, x: str) -> str:
        return self._node("Squeeze", name, [x, self._constant("axis_0", np.array([0]))])

    def _reshape(self, name: str, x: str, shape: Sequence[int]) -> str:
        constant = "shape_" + "_".join(map(str, shape))
        return self._node("Reshape", name, [x, self._constant(constant, np.array(shape))])

    def _weight(self, name: str, *shape: int) -> str:
        self._initializers[name] = self._file.add(name, self._weights(name, shape))
        return name

    def _constant(self, name: str, array: Any) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def _node(self, op_type: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{name}_output"
        self._nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output
