from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import TensorProto
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize


Chain = Callable[[Maker, NDArray[np.float32]], str]


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def reshaped(m: Maker, w: NDArray[np.float32]) -> str:
    return m.node("Reshape", [m.const(w.reshape(-1)), m.const(ints(*w.shape))])


def reshaped_to_computed_shape(m: Maker, w: NDArray[np.float32]) -> str:
    like = m.const(np.zeros(w.shape, np.float32))
    return m.node("Reshape", [m.const(w.reshape(-1)), m.node("Shape", [like])])


def cast(m: Maker, w: NDArray[np.float32]) -> str:
    return m.node("Cast", [m.const(w.astype(np.float16))], to=TensorProto.FLOAT)


def cast_constant_node(m: Maker, w: NDArray[np.float32]) -> str:
    value = onnx.numpy_helper.from_array(w.astype(np.float16))
    return m.node("Cast", [m.node("Constant", [], value=value)], to=TensorProto.FLOAT)


def transposed(m: Maker, w: NDArray[np.float32]) -> str:
    perm = list(range(w.ndim))[::-1]
    return m.node("Transpose", [m.const(np.ascontiguousarray(w.T))], perm=perm)


def unsqueezed(m: Maker, w: NDArray[np.float32]) -> str:
    last = m.const(ints(w.ndim - 1))
    return m.node("Squeeze", [m.node("Unsqueeze", [m.const(w), last]), last])


def sliced(m: Maker, w: NDArray[np.float32]) -> str:
    wide = m.const(np.concatenate([w, w], axis=-1))
    ends, axes = m.const(ints(w.shape[-1])), m.const(ints(-1))
    return m.node("Slice", [wide, m.const(ints(0)), ends, axes])


def concatenated(m: Maker, w: NDArray[np.float32]) -> str:
    return m.node("Concat", [m.const(w[:3]), m.const(w[3:])], axis=0)


def scaled_integers(m: Maker, w: NDArray[np.float32]) -> str:
    """Weights that are stored as integers and a factor, by elementary operators."""
    floats = m.node("Cast", [m.const((w * 4).astype(np.int8))], to=TensorProto.FLOAT)
    return m.node("Mul", [floats, m.const(np.float32(0.25))])


def normalized(m: Maker, w: NDArray[np.float32]) -> str:
    """A weight normalization: direction and length are parameters of their own."""
    axes = tuple(range(1, w.ndim))
    length = np.sqrt((w**2).sum(axes, keepdims=True)).astype(np.float32)
    norm = m.node("ReduceL2", [m.const(2 * w)], axes=list(axes), keepdims=1)
    return m.node("Mul", [m.node("Div", [m.const(2 * w), norm]), m.const(length)])


CHAINS: list[Chain] = [
    reshaped,
    reshaped_to_computed_shape,
    cast,
    cast_constant_node,
    transposed,
    unsqueezed,
    sliced,
    concatenated,
    scaled_integers,
    normalized,
]


def plain(m: Maker, w: NDArray[np.float32]) -> str:
    return m.const(w)


def layer(op_type: str, chain: Chain) -> onnx.ModelProto:
    """One op whose weight, of multiples of a quarter, comes out of a chain of nodes."""
    m = Maker()
    shape: tuple[int, ...] = (8, 6, 3, 3) if op_type == "Conv" else (8, 6)
    w = np.clip(np.rint(m.rng.standard_normal(shape) * 4), -15, 15).astype(np.float32) / 4
    x = m.input("x", ["N", 6, 5, 5] if op_type == "Conv" else ["N", 8])
    return m.model([m.node(op_type, [x, chain(m, w)], name="op")])


def feed_of(model: onnx.ModelProto, count: int = 16) -> NDArray[np.float32]:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return samples(count, *shape)


def normal(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def names_of(model: onnx.ModelProto, op_types: str = "default") -> list[str]:
    backend = OnnxRuntimeBackend(model, calibration_data=feed_of(model))
    return [tunable.name for tunable in backend.tuning_space(op_types=op_types).tunables]


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("op_type", ["MatMul", "Gemm", "Conv"])
def test_a_weight_behind_constant_nodes_is_quantized_as_if_it_stood_there(
    op_type: str, chain: Chain, approach: str
) -> None:
    model = layer(op_type, plain)
    exact = run(model, {"x": feed_of(model)}, optimized=False)[0]
    expected, found = (outputs_of(op_type, each, approach) for each in (plain, chain))
    for in_floats in (expected[0], found[0]):
        np.testing.assert_allclose(in_floats, exact, rtol=1e-5, atol=1e-5)
    # A normalized weight differs by rounding, which may move values to the next step.
    atol = 0.05 * np.abs(expected[1]).max() if chain is normalized else 1e-5
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=atol)


@cache
def outputs_of(
    op_type: str, chain: Chain, approach: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a layer gives in floats and on integers."""
    model = layer(op_type, chain)
    x = feed_of(model)
    backend = OnnxRuntimeBackend(model, calibration_data=x, approach=approach)
    space = backend.tuning_space(op_types="all")
    assert [(t.name, t.op_type) for t in space.tunables] == [("op", op_type)]
    assert backend.executed(space.default())["op"].integer
    in_floats, quantized = (
        backend.quantize(config).run({"x": x})[0] for config in (space.fp32(), space.default())
    )
    return in_floats, quantized


def two_layers(dtype: type, width: int = 64) -> onnx.ModelProto:
    m = Maker()
    h = m.input("x", ["N", width])
    for name in ("first", "second"):
        w = (m.rng.standard_normal((width, width)) / 8).astype(dtype)
        weight = m.const(w, f"{name}_stored")
        if dtype != np.float32:
            weight = m.node("Cast", [weight], to=TensorProto.FLOAT)
        h = m.node("MatMul", [h, weight], name=name)
    return m.model([h])


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_a_weight_that_stays_in_floats_is_stored_as_it_was(approach: str) -> None:
    model = two_layers(np.float16)
    x = samples(16, 64)
    backend = OnnxRuntimeBackend(
        model, calibration_data=x, approach=approach, session_options=exact_options()
    )
    space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["first", "second"]
    mixed = backend.quantize(space.default().with_fallback("second"))
    stored = {t.name: t.data_type for t in mixed.proto.graph.initializer}
    assert stored["second_stored"] == TensorProto.FLOAT16
    assert "first_stored" not in stored
    # One layer in 8 bits, one in 16; the rest is small.
    weights = 64 * 64 * (1 + 2)
    assert weights < mixed.nbytes < weights + 3000
    assert mixed.nbytes < backend.quantize(space.fp32()).nbytes
    expected = run(model, {"x": x}, optimized=False)[0]
    np.testing.assert_allclose(mixed.run({"x": x})[0], expected, atol=0.1)
    # And the other way round.
    mixed = backend.quantize(space.default().with_fallback("first"))
    assert weights < mixed.nbytes < weights + 3000
    np.testing.assert_allclose(mixed.run({"x": x})[0], expected, atol=0.1)


def test_tied_weights_are_stored_once_where_both_stay_in_floats() -> None:
    m = Maker()
    table = m.weight(200, 16, name="table")
    h = m.node("Gather", [table, m.input("ids", ["N"], TensorProto.INT64)], name="embed")
    h = m.node("MatMul", [h, m.weight(16, 16)], name="middle")
    y = m.node("MatMul", [h, m.node("Transpose", [table], perm=[1, 0])], name="out")
    model = m.model([y])
    ids = np.arange(20, dtype=np.int64)
    backend = OnnxRuntimeBackend(model, calibration_data=ids, session_options=exact_options())
    space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["middle", "out"]
    both = backend.quantize(space.default().with_fallback("out"))
    assert both.nbytes < model.ByteSize()
    expected = run(model, {"ids": ids}, optimized=False)[0]
    np.testing.assert_allclose(both.run({"ids": ids})[0], expected, atol=0.2)
    apart = backend.quantize(space.default())
    assert backend.executed(space.default())["out"].integer
    np.testing.assert_allclose(apart.run({"ids": ids})[0], expected, atol=0.2)


def test_new_tensors_never_take_the_place_of_stored_ones() -> None:
    # The names are those that quantization gives to what it makes of "w" and "v".
    m = Maker()
    x = m.input("x", ["N", 8])
    for name in ("w", "v"):
        integers = m.const(m.rng.integers(-9, 9, (8, 8)).astype(np.int8), f"{name}_quantized")
        floats = m.node("Cast", [integers], to=TensorProto.FLOAT, outputs=[f"{name}_scale_1"])
        factor = m.const(np.float32(0.1), f"{name}_scale")
        m.node("Mul", [floats, factor], outputs=[name])
    h = m.node("MatMul", [x, "w"], name="first")
    y = m.node("Add", [m.node("MatMul", [h, "v"], name="second"), m.node("MatMul", [x, "v"])])
    model = m.model([y])
    x_data = samples(16, 8)
    expected = run(model, {"x": x_data}, optimized=False)[0]
    for approach in ("static", "dynamic"):
        # Weights of 7 bits: products of 8 bits saturate on some processors.
        backend = OnnxRuntimeBackend(
            model, calibration_data=x_data, approach=approach, reduce_range=True
        )
        space = backend.tuning_space()
        for op in ("first", "second", "MatMul2"):
            found = backend.quantize(space.default().with_fallback(op))
            result = found.run({"x": x_data})[0]
            assert np.abs(result - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    "kind", ["random", "dequantized", "overridable", "branch", "other domain"]
)
def test_what_may_change_is_not_folded(kind: str) -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    if kind == "random":
        weight = m.node("RandomNormal", [], shape=[4, 4])
    elif kind == "dequantized":
        integers = m.const(np.ones((4, 4), np.int8))
        weight = m.node("DequantizeLinear", [integers, m.const(np.float32(0.5))])
    elif kind == "overridable":
        stored = m.weight(4, 4, name="w")
        m.input("w", [4, 4])
        weight = m.node("Mul", [stored, m.const(np.float32(0.5))])
    elif kind == "branch":
        branch = Maker()
        branch.const(np.ones((4, 4), np.float32), "then")
        graph = branch.model(["then"]).graph
        weight = m.node("If", [m.const(np.array(True))], then_branch=graph, else_branch=graph)
    else:
        weight = m.node("Gelu", [m.weight(4, 4)], domain="com.microsoft")
    y = m.node("MatMul", [x, weight], name="op")
    graph = normal(m.model([y]))
    assert not graph.is_constant(graph.nodes[-1].input[1])
    assert len(graph.nodes) == 2


def test_large_results_of_small_constants_are_not_computed() -> None:
    m = Maker()
    x = m.input("x", ["N", 1 << 20])
    huge = m.node("ConstantOfShape", [m.const(ints(1 << 20, 1 << 20))])
    tiled = m.node("Tile", [m.weight(1, 1024), m.const(ints(1024, 1))])
    wide = m.node("MatMul", [m.weight(1024, 1), m.weight(1, 1024)])
    h = m.node("MatMul", [x, huge], name="huge")
    h = m.node("MatMul", [m.node("Slice", [h, *(m.const(ints(n)) for n in (0, 1024, 1))]), tiled])
    y = m.node("MatMul", [h, wide])
    graph = normal(m.model([y]))
    left = [node.op_type for node in graph.nodes]
    assert left.count("MatMul") == 4
    assert {"ConstantOfShape", "Tile"} < set(left)


def test_small_results_are_computed_but_not_written_where_they_take_more_room() -> None:
    m = Maker()
    x = m.input("x", ["N", 256])
    offsets = m.node("Expand", [m.const(np.float32(0.5)), m.const(ints(64, 256))])
    h = m.node(
        "MatMul",
        [m.node("Mul", [x, m.node("Tile", [offsets, m.const(ints(1, 1))])]), m.weight(256, 4)],
        name="op",
    )
    model = m.model([h])
    graph = normal(model)
    assert [node.op_type for node in graph.nodes] == ["Mul", "MatMul"]
    x_data = samples(64, 256)
    backend = OnnxRuntimeBackend(model, calibration_data=x_data, calibration_batch_size=64)
    found = backend.quantize(backend.tuning_space().default())
    assert found.nbytes < 256 * 4 * 4
    expected = run(model, {"x": x_data}, optimized=False)[0]
    atol = 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(found.run({"x": x_data})[0], expected, atol=atol)


def test_a_folded_weight_that_a_branch_reads_as_well() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    stored = m.const(m.rng.standard_normal((4, 4)).astype(np.float16))
    weight = m.node("Cast", [stored], to=TensorProto.FLOAT)
    h = m.node("MatMul", [x, weight], name="op")
    branch = Maker()
    branch.node("MatMul", [h, weight], outputs=["then"])
    graph = branch.model(["then"]).graph
    y = m.node("If", [m.const(np.array(True))], then_branch=graph, else_branch=graph)
    model = m.model([y])
    x_data = samples(16, 4)
    backend = OnnxRuntimeBackend(model, calibration_data=x_data, session_options=exact_options())
    space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["op"]
    expected = run(model, {"x": x_data}, optimized=False)[0]
    result = backend.quantize(space.default()).run({"x": x_data})[0]
    np.testing.assert_allclose(result, expected, atol=0.2)


def test_an_output_that_depends_on_constants_alone_stays() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    weight = m.node("Reshape", [m.weight(16), m.const(ints(4, 4))])
    turned = m.node("Transpose", [weight], perm=[1, 0])
    model = m.model([m.node("MatMul", [x, turned], name="op"), weight])
    x_data = samples(16, 4)
    graph = normal(model)
    assert graph.is_constant(graph.nodes[-1].input[1])
    for value, wanted in zip(
        run(graph.to_model(), {"x": x_data}, optimized=False),
        run(model, {"x": x_data}, optimized=False),
        strict=True,
    ):
        np.testing.assert_array_equal(value, wanted)
    assert names_of(model) == ["op"]


def test_what_the_runtime_cannot_compute_alone_is_left_and_the_rest_is_folded() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    good = m.node("Reshape", [m.weight(16), m.const(ints(4, 4))])
    bad = m.node("Reshape", [m.weight(15), m.const(ints(4, -1))])
    h = m.node("MatMul", [x, good], name="good")
    y = m.node("MatMul", [h, bad], name="bad")
    graph = normal(m.model([y]))
    assert [node.name for node in graph.nodes][-2:] == ["good", "bad"]
    by_name = {node.name: node for node in graph.nodes}
    assert graph.is_constant(by_name["good"].input[1])
    assert not graph.is_constant(by_name["bad"].input[1])


def test_external_weights_are_folded_from_their_file(tmp_path: object) -> None:
    path = f"{tmp_path}/model.onnx"
    onnx.save(
        two_layers(np.float16),
        path,
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    for in_memory in (0, 1 << 20):
        graph = normalize(load_model(path, in_memory_bytes=in_memory))
        assert [node.op_type for node in graph.nodes] == ["MatMul", "MatMul"]
        stored = two_layers(np.float16).graph.initializer[0]
        w = onnx.numpy_helper.to_array(stored).astype(np.float32)
        np.testing.assert_array_equal(graph.array(graph.nodes[0].input[1]), w)


def test_folding_is_the_same_every_time() -> None:
    model = layer("Conv", normalized)
    graphs = [normal(model) for _ in range(2)]
    assert graphs[0].to_model() == graphs[1].to_model()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_weights_of_a_recurrent_layer_are_folded(dtype: type) -> None:
    # As exporters write them: one part for each gate, and an axis for the direction.
    m = Maker()
    x = m.input("x", [4, "N", 8])
    stored = []
    for width in (8, 16):
        gates = [m.const((m.rng.standard_normal((16, width)) / 4).astype(dtype)) for _ in range(4)]
        joined = m.node("Concat", gates, axis=0)
        if dtype != np.float32:
            joined = m.node("Cast", [joined], to=TensorProto.FLOAT)
        stored.append(m.node("Unsqueeze", [joined, m.const(ints(0))]))
    m.node("LSTM", [x, *stored], outputs=["y"], name="lstm", hidden_size=16)
    model = m.model(["y"])
    data = {"x": samples(4, 6, 8)}
    backend = OnnxRuntimeBackend(
        model, calibration_data=[data], approach="dynamic", session_options=exact_options()
    )
    space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["lstm"]
    assert backend.executed(space.default())["lstm"].kernel == "DynamicQuantizeLSTM"
    found = backend.quantize(space.default())
    assert found.nbytes < 64 * (8 + 16) + 2000
    expected = run(model, data, optimized=False)[0]
    np.testing.assert_allclose(found.run(data)[0], expected, atol=0.05)


def test_a_table_stored_as_float16_is_quantized_on_request() -> None:
    m = Maker()
    ids = m.input("ids", ["N"], TensorProto.INT64)
    stored = m.const(m.rng.standard_normal((1000, 16)).astype(np.float16))
    table = m.node("Cast", [stored], to=TensorProto.FLOAT)
    y = m.node("MatMul", [m.node("Gather", [table, ids], name="table"), m.weight(16, 4)])
    model = m.model([y])
    data = np.arange(1000, dtype=np.int64)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    space = backend.tuning_space(op_types=["Gather"])
    found = backend.quantize(space.default())
    assert found.nbytes < model.ByteSize() - 1000 * 16 + 1000
    expected = run(model, {"ids": data}, optimized=False)[0]
    np.testing.assert_allclose(found.run({"ids": data})[0], expected, atol=0.1)
