"""What is said of ops that are not in the tuning space, and of weights that stay in floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import warnings

import numpy as np
import onnx
from onnx import TensorProto
from onnx_models import Maker
from onnx_models import attention
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.left_out import FloatWeights
from optuna_quant.space.left_out import LeftOut


def backend_of(m: Maker, *outputs: str, approach: str = "static") -> OnnxRuntimeBackend:
    feed = {value.name: samples(16, 8) for value in m.inputs}
    return OnnxRuntimeBackend(
        m.model(outputs), calibration_data=feed, approach=approach, session_options=exact_options()
    )


def branch(m: Maker, x: str) -> str:
    inner = Maker()
    inner.node("MatMul", [x, inner.weight(8, 8)], outputs=["inside_out"], name="inside")
    graph = inner.model(["inside_out"]).graph
    condition = m.const(np.array(True))
    return m.node("If", [condition], then_branch=graph, else_branch=graph, name="choice")


def from_branch(m: Maker) -> str:
    inner = Maker()
    inner.const(np.ones((8, 8), np.float32), "ones")
    graph = inner.model(["ones"]).graph
    condition = m.const(np.array(True))
    return m.node("If", [condition], then_branch=graph, else_branch=graph, name="choice")


def dequantized(m: Maker) -> str:
    integers = m.const(np.ones((8, 8), np.int8))
    return m.node("DequantizeLinear", [integers, m.const(np.float32(0.1))], name="dequantize")


def not_finite(m: Maker) -> str:
    w = np.ones((8, 8), np.float32)
    w[0, 0], w[1, 1] = np.nan, np.inf
    return m.const(w, "w_bad")


def replaceable(m: Maker) -> str:
    m.weight(8, 8, name="stored")
    m.input("stored", [8, 8])
    return m.node("Mul", ["stored", m.const(np.float32(0.5))])


def too_large(m: Maker) -> str:
    shape = m.const(np.array([8, 1 << 20], np.int64))
    wide = m.node("ConstantOfShape", [shape])
    bounds = [m.const(np.array([n], np.int64)) for n in (0, 8, 1)]
    return m.node("Slice", [wide, *bounds])


def shape_of(m: Maker) -> str:
    """The shape of another input, whose values do not matter."""
    return m.node("Shape", [m.input("a", ["A", 8])])


WEIGHTS: list[tuple[str, Callable[[Maker], str], str, str]] = [
    ("Gemm", lambda m: m.input("w", [8, 8]), "its weight is the input 'w'", ""),
    (
        "Gemm",
        lambda m: m.node("Relu", [m.input("w", [8, 8])]),
        "its weight is computed from the input 'w'",
        "",
    ),
    (
        "Gemm",
        lambda m: m.node("Reshape", [m.node("Relu", [m.input("w", ["A", 8])]), shape_of(m)]),
        "its weight is computed from the input 'w'",
        "",
    ),
    (
        "Gemm",
        lambda m: m.node("Expand", [m.const(np.float32(1)), shape_of(m)]),
        "its weight is computed from the shape of the input 'a'",
        "",
    ),
    (
        "MatMul",
        lambda m: m.node("RandomNormal", [], shape=[8, 8], name="noise"),
        "its weight comes out of the RandomNormal 'noise', and differs each time",
        "",
    ),
    (
        "MatMul",
        dequantized,
        "its weight is already quantized: it comes out of the DequantizeLinear 'dequantize'",
        "give the FP32 model",
    ),
    (
        "Gemm",
        replaceable,
        "its weight is computed from 'stored', an input that callers may replace",
        "remove it from the list of inputs",
    ),
    ("Gemm", from_branch, "its weight comes out of the If 'choice'", ""),
    (
        "MatMul",
        not_finite,
        "its weight 'w_bad' has 2 of 64 values that are NaN or infinite",
        "fix the weight",
    ),
    (
        "Gemm",
        too_large,
        "its weight is computed from constants, but too large to store",
        "compute it before export",
    ),
]


@pytest.mark.parametrize(("op_type", "weight", "reason", "remedy"), WEIGHTS)
def test_why_an_op_is_left_out(
    op_type: str, weight: Callable[[Maker], str], reason: str, remedy: str
) -> None:
    m = Maker()
    x = m.input("x", [16, 8])
    h = m.node(op_type, [x, weight(m)], name="op")
    y = m.node("MatMul", [m.node("ReduceSum", [h, m.const(np.array([1]))]), m.weight(1, 4)])
    model = m.model([y])
    fed = [value.name for value in m.inputs if value.name != "stored"]
    feed = {name: samples(16 if name == "x" else 8, 8) for name in fed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = OnnxRuntimeBackend(model, calibration_data=[feed])
        frame = backend.left_out().set_index("op")
        assert [tunable.name for tunable in backend.tuning_space().tunables] == ["MatMul0"] or [
            tunable.name for tunable in backend.tuning_space().tunables
        ] == ["MatMul1"]
    assert frame.loc["op", "reason"] == reason
    assert frame.loc["op", "remedy"] == remedy


def recurrent(m: Maker, x: str, op_type: str, width: int = 8) -> str:
    gates = {"LSTM": 4, "GRU": 3}[op_type]
    steps = m.node("Unsqueeze", [x, m.const(np.array([1]))])
    weights = [m.weight(1, gates * width, 8), m.weight(1, gates * width, width)]
    outputs = [f"{op_type}_{i}" for i in range(2)]
    m.node(op_type, [steps, *weights], outputs=outputs, name=op_type.lower(), hidden_size=width)
    return m.node("Squeeze", [outputs[1], m.const(np.array([0]))])


def mixed() -> Maker:
    """An op for each kind of reason that has nothing to do with weights."""
    m = Maker()
    h = m.input("x", ["N", 8])
    h = m.node("MatMul", [h, m.weight(8, 8)], name="layer")
    h = m.node("Add", [h, m.weight(8)], name="bias")
    h = m.node("Mul", [recurrent(m, h, "GRU"), recurrent(m, h, "LSTM")], name="gate")
    h = m.node("MatMul", [h, m.node("Transpose", [h])], name="scores")
    h = m.node("MatMul", [h, m.input("v", ["N", 8])], name="values")
    m.node("Add", [h, branch(m, h)], name="end", outputs=["y"])
    return m


def test_reasons_by_op_and_approach() -> None:
    frame = backend_of(mixed(), "y").left_out().set_index("op")
    assert frame.loc["lstm"].tolist() == [
        "LSTM",
        4 * 8 * 16 * 4,
        "only dynamic quantization takes it",
        'approach="auto" or --approach auto',
    ]
    assert frame.loc["gru", "reason"] == "ONNX Runtime has no quantized GRU"
    assert frame.loc["gru", "weight_bytes"] == 3 * 8 * 16 * 4
    assert frame.loc["gate", "remedy"] == 'op_types="all" or --op-types all'
    assert frame.loc["scores", "op_type"] == "MatMulActivations"
    assert "product of two activations" in frame.loc["scores", "reason"]
    assert (
        frame.loc["inside", "reason"].to_numpy()
        == ("it is inside the If 'choice', which stays as it is")
    ).all()
    assert (frame.loc["inside", "weight_bytes"].to_numpy() == 8 * 8 * 4).all()
    assert "layer" not in frame.index
    auto = backend_of(mixed(), "y", approach="auto")
    assert "lstm" not in auto.left_out()["op"].tolist()
    asked = auto.tuning_space(op_types=["LSTM"])
    frame = auto.left_out(asked).set_index("op")
    assert frame.loc["layer", "reason"] == ("its op type was not asked for")


def test_nothing_is_left_out_of_a_space_of_all() -> None:
    backend = OnnxRuntimeBackend(attention(), calibration_data=samples(4, 3, 8))
    assert len(backend.left_out(backend.tuning_space(op_types="all"))) == 0
    assert set(backend.left_out()["op_type"]) == {"Add", "MatMulActivations", "Mul", "Softmax"}


def test_an_op_with_a_nan_weight_is_named_and_the_others_are_quantized() -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    good = m.node("MatMul", [x, m.weight(8, 8)], name="good")
    bad = m.node("MatMul", [x, not_finite(m)], name="bad")
    for approach in ("static", "dynamic"):
        backend = backend_of(m, good, bad, approach=approach)
        with pytest.warns(UserWarning, match=r"Op 'bad' \(MatMul\) stays in FP32: .*'w_bad'"):
            space = backend.tuning_space()
        assert [tunable.name for tunable in space.tunables] == ["good"]
        x_data = samples(16, 8)
        found = backend.quantize(space.default()).run({"x": x_data})
        expected = run(m.model([good, bad]), {"x": x_data})
        np.testing.assert_allclose(found[0], expected[0], atol=0.2)
        np.testing.assert_array_equal(np.isnan(found[1]), np.isnan(expected[1]))


def single(dtype: int, make: Callable[[Maker, str], str]) -> onnx.ModelProto:
    m = Maker()
    return m.model({make(m, m.input("x", ["N", 8], dtype)): dtype})


def layer(dtype: type) -> Callable[[Maker, str], str]:
    return lambda m, x: m.node("MatMul", [x, m.const(np.ones((8, 8), dtype))], name="op")


def quantized_layer(m: Maker, x: str) -> str:
    scale = m.const(np.float32(0.1))
    h = m.node("QuantizeLinear", [x, scale])
    h = m.node("DequantizeLinear", [h, scale])
    return m.node("MatMul", [h, dequantized(m)])


def dynamic_layer(m: Maker, x: str) -> str:
    weight, scale = m.const(np.ones((8, 8), np.int8)), m.const(np.float32(0.1))
    return m.node("DynamicQuantizeMatMul", [x, weight, scale], domain="com.microsoft")


@pytest.mark.parametrize(
    ("model", "dtype", "message"),
    [
        (
            single(TensorProto.FLOAT, quantized_layer),
            np.float32,
            "It is already quantized, with 2 DequantizeLinear nodes and 1 QuantizeLinear node: "
            "give the FP32 model that it was made from.",
        ),
        (
            single(TensorProto.FLOAT, dynamic_layer),
            np.float32,
            "It is already quantized, with 1 DynamicQuantizeMatMul node: give the FP32 model",
        ),
        (
            single(TensorProto.FLOAT, branch),
            np.float32,
            "Its 2 MatMul are all inside If, Loop or Scan, which are not quantized",
        ),
        (
            single(TensorProto.FLOAT16, layer(np.float16)),
            np.float16,
            "It computes in float16, but only float32 is quantized: export it in float32.",
        ),
        (
            single(TensorProto.DOUBLE, layer(np.float64)),
            np.float64,
            "It computes in double, but only float32 is quantized: export it in float32.",
        ),
        (
            single(TensorProto.FLOAT, lambda m, x: m.node("MatMul", [x, not_finite(m)], name="a")),
            np.float32,
            "MatMul 'a' is left out: its weight 'w_bad' has 2 of 64 values that are NaN",
        ),
        (
            single(TensorProto.FLOAT, lambda m, x: recurrent(m, x, "LSTM")),
            np.float32,
            "LSTM 'lstm' is left out: only dynamic quantization takes it (approach=\"auto\"",
        ),
        (
            single(TensorProto.FLOAT, lambda m, x: m.node("Gemm", [x, m.node("Gemm", [x, x])])),
            np.float32,
            "Gemm 'Gemm0' is left out: its weight is the input 'x'. There is 1 more:",
        ),
    ],
)
def test_why_a_model_cannot_be_quantized(
    model: onnx.ModelProto, dtype: type, message: str
) -> None:
    data = samples(8, 8).astype(dtype)
    backend = OnnxRuntimeBackend(model, calibration_data=data, approach="static")
    with pytest.raises(ValueError, match="no op that is worth quantizing") as raised:
        backend.tuning_space()
    assert message in str(raised.value)


def test_a_model_that_is_quantized_in_part_is_told_of() -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    y = m.node("MatMul", [quantized_layer(m, x), m.weight(8, 4)], name="last")
    backend = backend_of(m, y)
    with pytest.warns(UserWarning, match=r"already quantized.* 2 DequantizeLinear nodes and 1 Q"):
        space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["last"]
    assert backend.original == "the model as given"
    floats = Maker()
    y = floats.node("MatMul", [floats.input("x", ["N", 8]), floats.weight(8, 4)])
    assert backend_of(floats, y).original == "FP32"


def test_float_weights_by_configuration() -> None:
    m = mixed()
    backend = backend_of(m, "y")
    layer, bias = 8 * 8 * 4, 8 * 4
    lstm, gru, inside = 4 * 8 * 16 * 4, 3 * 8 * 16 * 4, 2 * 8 * 8 * 4
    space = backend.tuning_space()
    found = backend.float_weights(space.default())
    # Both branches have a weight of their own, under one name.
    assert found.nbytes == bias + lstm + gru + inside
    assert found.in_fallback == 0
    assert found.model_bytes == m.model(["y"]).ByteSize()
    found = backend.float_weights(space.default().with_fallback("layer"))
    assert found.nbytes == layer + bias + lstm + gru + inside
    assert found.in_fallback == layer
    assert found.is_worth_saying
    assert "LSTM 'lstm' 2.05 kB (only dynamic quantization takes it: approach=\"auto\"" in str(
        found
    )
    auto = backend_of(mixed(), "y", approach="auto")
    assert auto.float_weights(auto.tuning_space().default()).nbytes == bias + gru + inside


def test_weights_stored_as_float16_count_as_such() -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    stored = m.const(np.ones((8, 8), np.float16))
    y = m.node("MatMul", [x, m.node("Cast", [stored], to=TensorProto.FLOAT)])
    backend = backend_of(m, y)
    space = backend.tuning_space()
    assert backend.float_weights(space.default()).nbytes == 0
    assert backend.float_weights(space.fp32()).nbytes == 8 * 8 * 2


def test_shown_float_weights() -> None:
    ops = [
        LeftOut("a", "GRU", "there is no kernel", "", 300_000),
        LeftOut("b", "LSTM", "only dynamic", "dynamic", 1_500_000),
        LeftOut("c", "Add", "it is rarely worth it", "all", 0),
    ]
    weights = FloatWeights(2_100_000, 3_400_000, ops, in_fallback=300_001)
    assert str(weights) == (
        "2.1 MB of 3.4 MB stay in floats: LSTM 'b' 1.5 MB (only dynamic: dynamic), "
        "ops in fallback 300 kB, GRU 'a' 300 kB (there is no kernel)"
    )
    assert "ops that were not tried quantized 300 kB" in str(replace(weights, was_searched=False))
    assert weights.is_worth_saying
    assert not FloatWeights(2_100, 3_400_000).is_worth_saying
    # The fallback has a line of its own.
    assert not FloatWeights(2_100_000, 3_400_000, in_fallback=2_000_000).is_worth_saying
