"""What repeats in a graph: exact blocks, whatever the names are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_models import Maker
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.blocks import find_blocks
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize


def transformer_layer(m: Maker, h: str, width: int, name: str, mask: str = "") -> str:
    """Attention and a feed-forward part, each with a residual connection."""
    n = m.node("Softplus", [h])
    q, k, v = (m.node("MatMul", [n, m.weight(width, width)], name=f"{name}{x}") for x in "qkv")
    scores = m.node("MatMul", [q, m.node("Transpose", [k], perm=[0, 2, 1])], name=f"{name}scores")
    if mask:
        scores = m.node("Add", [scores, mask])
    mixed = m.node("MatMul", [m.node("Softmax", [scores]), v], name=f"{name}mixed")
    h = m.node("Add", [h, m.node("MatMul", [mixed, m.weight(width, width)], name=f"{name}out")])
    up = m.node("MatMul", [m.node("Softplus", [h]), m.weight(width, 2 * width)], name=f"{name}up")
    down = m.node("MatMul", [m.node("Relu", [up]), m.weight(2 * width, width)], name=f"{name}down")
    return m.node("Add", [h, down])


PLACES = ("q", "k", "v", "scores", "mixed", "out", "up", "down")


def bert(layers: int = 3, width: int = 4) -> onnx.ModelProto:
    """Embeddings, layers that share a mask, and a classifier of the layers' own width."""
    m = Maker()
    ids = m.input("ids", ["N", 5], onnx.TensorProto.INT64)
    given = m.input("mask", ["N", 1, 5])
    mask = m.node("Mul", [m.node("Sub", [given, m.const(np.float32(1))]), m.const(np.float32(9))])
    h = m.node("Gather", [m.weight(7, width), ids])
    for i in range(layers):
        h = transformer_layer(m, h, width, f"l{i}", mask)
    return m.model([m.node("MatMul", [h, m.weight(width, 3)], name="classifier")])


def vit() -> onnx.ModelProto:
    m = Maker()
    h = m.node("Conv", [m.input("x", ["N", 1, 8, 8]), m.weight(4, 1, 2, 2)], strides=[2, 2])
    h = m.node("Reshape", [h, m.const(np.array([0, 4, 16], dtype=np.int64))])
    h = m.node("Transpose", [h], perm=[0, 2, 1])
    for i in range(3):
        h = transformer_layer(m, h, 4, f"l{i}")
    return m.model([m.node("MatMul", [h, m.weight(4, 3)], name="head")])


def decoder() -> onnx.ModelProto:
    """The mask is computed from the shape of what is embedded; the keys are outputs."""
    m = Maker()
    h = m.node("Gather", [m.weight(7, 4), m.input("ids", ["N", 5], onnx.TensorProto.INT64)])
    mask = m.node("Cast", [m.node("Shape", [h])], to=onnx.TensorProto.FLOAT)
    mask = m.node("ReduceMean", [mask], keepdims=0)
    for i in range(3):
        h = transformer_layer(m, h, 4, f"l{i}", mask)
    logits = m.node("MatMul", [h, m.weight(4, 7)], name="head")
    keys = [m.nodes[[n.name for n in m.nodes].index(f"l{i}k")].output[0] for i in range(3)]
    return m.model([logits, *keys])


def scrambled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with other names of its nodes and weights."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = {x.name: f"t{(i * 7) % 997}x{i}" for i, x in enumerate(changed.graph.initializer)}
    for i, node in enumerate(changed.graph.node):
        node.name = f"n{(i * 31) % 101}"
        node.input[:] = [names.get(name, name) for name in node.input]
    for tensor in changed.graph.initializer:
        tensor.name = names[tensor.name]
    return changed


def blocks_of(model: onnx.ModelProto) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for block in find_blocks(normalize(load_model(model))):
        found.setdefault(block.family, []).append(block.ops)
    return found


@pytest.mark.parametrize("make", [bert, vit, decoder])
def test_layers_of_transformers(make: Callable[[], onnx.ModelProto]) -> None:
    expected = [tuple(f"l{i}{place}" for place in PLACES) for i in range(3)]
    assert blocks_of(make()) == {"family0": expected}


@pytest.mark.parametrize("make", [bert, vit, decoder])
def test_names_play_no_part(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    other = scrambled(model)
    names = {a.name: b.name for a, b in zip(model.graph.node, other.graph.node, strict=True)}
    expected = [tuple(names[f"l{i}{place}"] for place in PLACES) for i in range(3)]
    assert blocks_of(other) == {"family0": expected}


def exported_layer(m: Maker, h: str, width: int, name: str) -> str:
    """A pre-norm layer as torch's exporter writes it: small ops, shapes computed, one matrix for
    queries, keys and values."""

    def norm(x: str) -> str:
        off = m.node("Sub", [x, m.node("ReduceMean", [x], axes=[-1])])
        two = m.node("Constant", [], value=numpy_helper.from_array(np.float32(2)))
        variance = m.node("ReduceMean", [m.node("Pow", [off, two])], axes=[-1])
        scale = m.node("Sqrt", [m.node("Add", [variance, m.const(np.float32(1e-5))])])
        y = m.node("Mul", [m.node("Div", [off, scale]), m.weight(width)])
        return m.node("Add", [y, m.weight(width)])

    def linear(x: str, inputs: int, outputs: int, place: str) -> str:
        weight = m.node("Identity", [m.weight(inputs, outputs)])
        y = m.node("MatMul", [x, weight], name=f"{name}{place}")
        return m.node("Add", [m.weight(outputs), y])

    def size(x: str, axis: int) -> str:
        found = m.node("Gather", [m.node("Shape", [x]), m.const(np.int64(axis))], axis=0)
        return m.node("Unsqueeze", [found, m.const(np.array([0]))])

    n = norm(h)
    shape = [size(n, 0), size(n, 1), m.const(np.array([3, width]))]
    qkv = m.node("Reshape", [linear(n, width, 3 * width, "qkv"), m.node("Concat", shape, axis=0)])
    turned = m.node("Transpose", [qkv], perm=[2, 0, 1, 3])
    q, k, v = (m.node("Gather", [turned, m.const(np.int64(i))], axis=0) for i in range(3))
    keys = m.node("Transpose", [k], perm=[0, 2, 1])
    scores = m.node("MatMul", [m.node("Mul", [q, m.const(np.float32(0.5))]), keys],
                    name=f"{name}scores")  # fmt: skip
    mixed = m.node("MatMul", [m.node("Softmax", [scores], axis=-1), v], name=f"{name}mixed")
    h = m.node("Add", [h, linear(mixed, width, width, "out")])
    up = linear(norm(h), width, 2 * width, "up")
    erf = m.node("Erf", [m.node("Div", [up, m.const(np.float32(1.414))])])
    gelu = m.node("Mul", [up, m.node("Add", [erf, m.const(np.float32(1))])])
    return m.node("Add", [h, linear(gelu, 2 * width, width, "down")])


EXPORTED = ("qkv", "scores", "mixed", "out", "up", "down")


@pytest.mark.parametrize("skips_all", [False, True])
def test_layers_as_they_are_exported(skips_all: bool) -> None:
    """Also below a connection that skips all of them, as in a network for text recognition."""
    m = Maker()
    first = m.node("MatMul", [m.input("x", ["N", "T", 8]), m.weight(8, 4)], name="stem")
    h = first
    for i in range(3):
        h = exported_layer(m, h, 4, f"l{i}")
    if skips_all:
        h = m.node("Concat", [first, h], axis=-1)
    model = m.model([m.node("MatMul", [h, m.weight(8 if skips_all else 4, 5)], name="head")])
    expected = [tuple(f"l{i}{place}" for place in EXPORTED) for i in range(3)]
    assert blocks_of(model) == {"family0": expected}
    names = {node.name: f"n{(i * 31) % 401}" for i, node in enumerate(model.graph.node)}
    for node in model.graph.node:
        node.name = names[node.name]
    assert blocks_of(model) == {"family0": [tuple(map(names.get, ops)) for ops in expected]}


def test_residual_units_of_each_stage() -> None:
    m = Maker()
    h = m.node("Conv", [m.input("x", ["N", 3, 8, 8]), m.weight(4, 3, 1, 1)], name="stem")
    for stage, width in enumerate((4, 6)):
        if stage:
            h = m.node("Conv", [h, m.weight(width, 4, 1, 1)], name="wider")
        for unit in range(2):
            a = m.node("Conv", [h, m.weight(width, width, 1, 1)], name=f"s{stage}u{unit}a")
            b = m.node("Conv", [m.node("Relu", [a]), m.weight(width, width, 1, 1)],
                       name=f"s{stage}u{unit}b")  # fmt: skip
            h = m.node("Relu", [m.node("Add", [h, b])])
    assert blocks_of(m.model([h])) == {
        f"family{s}": [(f"s{s}u{u}a", f"s{s}u{u}b") for u in range(2)] for s in range(2)
    }


def test_depthwise_separable_blocks_of_different_widths() -> None:
    m = Maker()
    h = m.node("Conv", [m.input("x", ["N", 1, 8, 8]), m.weight(2, 1, 3, 3)], name="stem")
    for i, width in enumerate((2, 4, 6)):
        deep = {"group": width, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        h = m.node("Conv", [h, m.weight(width, 1, 3, 3)], name=f"b{i}dw", **deep)
        h = m.node("Relu", [h])
        wide = m.weight(width + 2, width, 1, 1)
        h = m.node("Conv", [h, wide], name=f"b{i}pw", kernel_shape=[1, 1])
    assert blocks_of(m.model([h])) == {"family0": [(f"b{i}dw", f"b{i}pw") for i in range(3)]}


def test_equal_blocks_and_wider_ones_behind_them() -> None:
    m = Maker()
    h = m.node("Conv", [m.input("x", ["N", 1, 8, 8]), m.weight(4, 1, 3, 3)], name="stem")
    ops = []
    for i, (inputs, width) in enumerate([(4, 4), (4, 4), (4, 4), (4, 6), (6, 8)]):
        ops.append((f"b{i}spatial", f"b{i}pointwise"))
        wide, point = m.weight(width, inputs, 3, 3), m.weight(width, width, 1, 1)
        h = m.node("Conv", [h, wide], name=ops[i][0], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        h = m.node("Conv", [m.node("Relu", [h]), point], name=ops[i][1], kernel_shape=[1, 1])
    assert blocks_of(m.model([h])) == {"family0": ops[:3], "family1": ops[3:]}


def test_nothing_repeats() -> None:
    m = Maker()
    h = m.node("MatMul", [m.input("x", ["N", 3]), m.weight(3, 4)])
    assert blocks_of(m.model([m.node("MatMul", [h, m.weight(4, 5)])])) == {}


def test_the_backend_names_ops_that_it_can_tune() -> None:
    backend = OnnxRuntimeBackend(bert(), inspect_only=True)
    tuned = {op.name for op in backend.capability().ops}
    assert tuned.issuperset(op for block in backend.blocks() for op in block.ops)
