from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import FLOAT
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import fused_attention
from onnx_models import residual
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


Array = NDArray[np.float32]

A8 = "uint8/asym/per_tensor/minmax"
W8 = "int8/sym/per_channel/minmax"


def static(activation: str = A8, weight: str | None = W8) -> OpConfig:
    return OpConfig.from_label(f"static a={activation}" + (f" w={weight}" if weight else ""))


def build(
    model: onnx.ModelProto, data: Any, ops: dict[str, OpConfig], **kwargs: Any
) -> onnx.ModelProto:
    backend = OnnxRuntimeBackend(model, calibration_data=data, **kwargs)
    return backend.quantize(QuantConfig(ops)).proto


def all_static(model: onnx.ModelProto, data: Any, op_types: Any = "default") -> onnx.ModelProto:
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    return backend.quantize(backend.tuning_space(op_types=op_types).default()).proto


def nodes(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op_type]


def initializer(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    (found,) = (t for t in model.graph.initializer if t.name == name)
    return onnx.numpy_helper.to_array(found)


def maker(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    (found,) = (node for node in model.graph.node if tensor in node.output)
    return found


def reads_quantized(model: onnx.ModelProto, op: str, position: int = 0) -> bool:
    (node,) = (node for node in model.graph.node if node.name == op)
    name = node.input[position]
    made = [n for n in model.graph.node if name in n.output]
    return bool(made) and made[0].op_type == "DequantizeLinear"


# A reference in numpy.


def limits(dtype: str, scheme: str) -> tuple[int, int]:
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    return (low + 1 if scheme == "sym" else low), high


def fake_quantize(x: Array, label: str, axis: int | None = None) -> Array:
    """Quantize to the range of the values themselves and back."""
    dtype, scheme, granularity, _ = label.split("/")
    low, high = limits(dtype, scheme)
    axes = None
    if granularity == "per_channel":
        axes = tuple(i for i in range(x.ndim) if i != axis)
    rmin = np.minimum(x.min(axis=axes, keepdims=True), 0.0).astype(np.float64)
    rmax = np.maximum(x.max(axis=axes, keepdims=True), 0.0).astype(np.float64)
    if scheme == "sym":
        scale = (np.maximum(-rmin, rmax) / ((high - low) // 2)).astype(np.float32)
        zero_point = np.full(scale.shape, (low + high) // 2, dtype=np.float32)
    else:
        scale = ((rmax - rmin) / (high - low)).astype(np.float32)
        zero_point = np.rint(low - rmin / scale).astype(np.float32)
    integers = np.clip(np.rint(x / scale) + zero_point, low, high)
    return ((integers - zero_point) * scale).astype(np.float32)


def conv(x: Array, w: Array, b: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("ncyxij,ocij->noyx", windows, w) + b[:, None, None]


def assert_close(actual: Array, expected: Array, step: float = 0.0) -> None:
    """Equal up to the rounding of floats; where that tips a value, by one step, in few places."""
    difference = np.abs(actual - expected)
    assert difference.max() <= step * 1.01 + 1e-4
    assert np.mean(difference > 1e-4) < 0.01


ACTIVATIONS = [
    f"{dtype}/{s}/per_tensor/minmax" for dtype in ("uint8", "int8") for s in ("asym", "sym")
]
WEIGHTS = [
    "int8/sym/per_channel/minmax",
    "int8/sym/per_tensor/minmax",
    "int8/asym/per_channel/minmax",
    "uint8/asym/per_tensor/minmax",
]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_conv_against_numpy(activation: str, weight: str) -> None:
    m = Maker()
    x = m.input("x", ["N", 3, 7, 7])
    model = m.model([m.node("Relu", [m.conv(x, 3, 4)])])
    data = samples(8, 3, 7, 7)
    w, b = initializer(model, "c0"), initializer(model, "c1")
    exact = conv(data, w, b)
    y = conv(fake_quantize(data, activation), fake_quantize(w, weight, 0), b)
    # The result is quantized behind the Relu, or before it if the zero point cannot cut it off.
    if "/sym/" in activation:
        step = 2 * np.abs(exact).max() / 254
        steps = np.clip(np.rint(y / step), -127, 127)
        expected = np.maximum(steps * step, 0)
    else:
        step = exact.max() / 255
        expected = np.clip(np.rint(np.maximum(y, 0) / step), 0, 255) * step
    quantized = build(model, data, {"Conv0": static(activation, weight)})
    (actual,) = run(quantized, {"x": data}, optimized=False)
    assert_close(actual, expected.astype(np.float32), step)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matmul_against_numpy(activation: str, weight: str) -> None:
    m = Maker()
    x = m.input("x", ["N", "L", 16])
    model = m.model([m.node("MatMul", [x, m.weight(16, 8)])])
    data = samples(4, 5, 16)
    w = initializer(model, "c0")
    expected = fake_quantize(data, activation) @ fake_quantize(w, weight, 1)
    quantized = build(model, data, {"MatMul0": static(activation, weight)})
    (actual,) = run(quantized, {"x": data}, optimized=False)
    assert_close(actual, expected)


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}])
@pytest.mark.parametrize("bias", [None, (8,), (1, 8), ()])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_gemm_against_numpy(
    weight: str, bias: tuple[int, ...] | None, attributes: dict[str, Any]
) -> None:
    m = Maker()
    x = m.input("x", ["N", 16])
    inputs = [x, m.weight(8, 16) if "transB" in attributes else m.weight(16, 8)]
    if bias is not None:
        inputs.append(m.weight(*bias))
    model = m.model([m.node("Gemm", inputs, **attributes)])
    data = samples(32, 16)
    w = initializer(model, "c0")
    w = w.T if "transB" in attributes else w
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    expected = alpha * (fake_quantize(data, A8) @ fake_quantize(w, weight, 1))
    if bias is not None:
        expected = expected + beta * initializer(model, "c1")
    quantized = build(model, data, {"Gemm0": static(weight=weight)})
    (actual,) = run(quantized, {"x": data}, optimized=False)
    assert_close(actual, expected)
    (fast,) = run(quantized, {"x": data})
    assert_close(fast, expected)


def test_constant_on_the_left_against_numpy() -> None:
    m = Maker()
    x = m.input("x", [16, "N"])
    model = m.model([m.node("MatMul", [m.weight(4, 16), x])])
    data = samples(16, 32)
    expected = fake_quantize(initializer(model, "c0"), A8) @ fake_quantize(data, A8)
    quantized = build(model, [{"x": data}], {"MatMul0": static(weight=A8)})
    for optimized in (False, True):
        (actual,) = run(quantized, {"x": data}, optimized=optimized)
        assert_close(actual, expected)


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Concat"])
@pytest.mark.parametrize("constant", [False, True])
def test_element_wise_against_numpy(op_type: str, constant: bool) -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    y = m.const(samples(32, 4, seed=3), "y") if constant else m.input("y", ["N", 4])
    attributes = {"axis": 1} if op_type == "Concat" else {}
    model = m.model([m.node(op_type, [x, y], **attributes)])
    data = {"x": samples(32, 4), "y": samples(32, 4, seed=3)}
    feed = {"x": data["x"]} if constant else data

    def compute(a: Array, b: Array) -> Array:
        if op_type == "Concat":
            return np.concatenate([a, b], axis=1)
        return a + b if op_type == "Add" else a * b

    exact = compute(data["x"], data["y"])
    low, high = min(exact.min(), 0), max(exact.max(), 0)
    step = (high - low) / 255
    expected = compute(fake_quantize(data["x"], A8), fake_quantize(data["y"], A8))
    expected = np.clip(expected, low, high)
    quantized = all_static(model, feed, "all")
    (actual,) = run(quantized, feed, optimized=False)
    # Half a step by rounding, and up to another one at the ends by rounding the zero point.
    assert np.abs(actual - expected).max() <= step * 1.01
    (fast,) = run(quantized, feed)
    assert np.abs(fast - actual).max() <= step * 1.01


def test_table_lookup_against_numpy() -> None:
    m = Maker()
    x = m.input("x", ["N"], onnx.TensorProto.INT64)
    model = m.model([m.node("Sigmoid", [m.node("Gather", [m.weight(20, 4), x])])])
    data = np.arange(20)
    expected = 1 / (1 + np.exp(-fake_quantize(initializer(model, "c0"), A8)))
    quantized = build(model, data, {"Gather0": static(weight=A8)})
    for optimized in (False, True):
        (actual,) = run(quantized, {"x": data}, optimized=optimized)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert initializer(quantized, "c0_quantized").dtype == np.uint8


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_bias_that_needs_a_coarser_weight(granularity: str) -> None:
    m = Maker()
    x = m.input("x", ["N", 4, 3, 3])
    w = (m.rng.standard_normal((3, 4, 1, 1)) * 1e-9).astype(np.float32)
    w[2] *= 1e9 if granularity == "per_channel" else 1
    b = np.array([5.0, -7.0, 0.5], np.float32)
    model = m.model([m.node("Conv", [x, m.const(w), m.const(b)])])
    data = samples(8, 4, 3, 3)
    weight = f"int8/sym/{granularity}/minmax"
    quantized = build(model, data, {"Conv0": static(weight=weight)})
    expected = conv(data, w, b)
    for optimized in (False, True):
        (actual,) = run(quantized, {"x": data}, optimized=optimized)
        assert np.abs(actual - expected).max() <= 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("make", [convnet, residual])
@pytest.mark.parametrize("algorithm", ["minmax", "percentile", "kl", "mse"])
def test_optimized_and_plain_sessions_agree(make: Any, algorithm: str) -> None:
    model = make()
    shape = [d.dim_value or 16 for d in model.graph.input[0].type.tensor_type.shape.dim]
    data = samples(*shape)
    ops = {
        node.name: static(f"uint8/asym/per_tensor/{algorithm}")
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm")
    }
    quantized = build(model, data, ops)
    (fast,) = run(quantized, {"x": data})
    (plain,) = run(quantized, {"x": data}, optimized=False)
    assert np.abs(fast - plain).max() <= 0.02 * np.abs(plain).max()
    (exact,) = run(model, {"x": data})
    assert np.abs(plain - exact).max() <= 0.2 * np.abs(exact).max()


# Where tensors are quantized.


def test_readers_of_the_same_parameters_share_a_pair() -> None:
    quantized = all_static(attention(), samples(4, 5, 8))
    # The input for three products, and what the last one reads.
    assert len(nodes(quantized, "QuantizeLinear")) == 2
    readers = Counter(name for node in quantized.graph.node for name in node.input)
    assert readers["x_dequantized"] == 3


def test_readers_of_other_parameters_have_their_own_pair() -> None:
    ops = {"query": static(), "key": static("uint8/asym/per_tensor/mse"), "value": FP32}
    quantized = build(attention(), samples(64, 5, 8), ops)
    assert len(nodes(quantized, "QuantizeLinear")) == 2
    assert reads_quantized(quantized, "query")
    assert reads_quantized(quantized, "key")
    (value,) = (node for node in quantized.graph.node if node.name == "value")
    assert value.input[0] == "x"
    assert value.input[1] in {tensor.name for tensor in attention().graph.initializer}


def test_op_in_fallback_sees_unquantized_inputs() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    h = m.node("Tanh", [x])
    model = m.model([m.node("MatMul", [h, m.weight(4, 4)]), m.node("MatMul", [h, m.weight(4, 4)])])
    data = samples(16, 4)
    quantized = build(model, data, {"MatMul0": static(), "MatMul1": FP32})
    expected, actual = run(model, {"x": data}), run(quantized, {"x": data})
    np.testing.assert_array_equal(actual[1], expected[1])
    assert np.abs(actual[0] - expected[0]).max() > 0


def test_op_in_fallback_behind_an_op_that_writes_integers() -> None:
    # It reads what the quantized op wrote; its own weight and result stay in floats.
    ops = {"Conv0": static(), "Conv1": FP32, "Gemm0": static()}
    data = samples(8, 2, 8, 8)
    quantized = build(convnet(), data, ops)
    (second,) = (node for node in quantized.graph.node if node.name == "Conv1")
    assert list(second.input) == list(convnet().graph.node[3].input)
    (fast,), (plain,) = run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False)
    assert np.abs(fast - plain).max() <= 1e-5 * np.abs(plain).max()


@pytest.mark.parametrize("between", ["nothing", "Relu", "MaxPool", "Reshape"])
@pytest.mark.parametrize("behind", ["nothing", "Relu", "Reshape"])
@pytest.mark.parametrize("op_type", ["Conv", "Gemm"])
def test_runtime_does_not_quantize_ops_in_fallback(
    op_type: str, behind: str, between: str
) -> None:
    # The runtime quantizes the weight of a Conv or Gemm that it finds between two pairs.
    m = Maker()
    h = m.node("Relu", [m.conv(m.input("x", ["N", 4, 4, 4]), 4, 4, kernel=(1, 1))])

    def then(h: str, op_type: str) -> str:
        if op_type == "MaxPool":
            return m.node("MaxPool", [h], kernel_shape=[1, 1])
        if op_type == "Reshape":
            return m.node("Reshape", [h, m.const(np.array([-1, 4, 4, 4]))])
        return h if op_type == "nothing" else m.node(op_type, [h])

    h = then(h, between)
    weight = m.const((10.0 ** m.rng.uniform(-3, 0, (4, 4, 1, 1))).astype(np.float32), "exact")
    if op_type == "Conv":
        h = m.node("Conv", [h, weight, m.weight(4)], name="fallback")
        h = then(h, behind)
        h = m.conv(h, 4, 4, kernel=(1, 1))
    else:
        h = m.node("Reshape", [h, m.const(np.array([-1, 4]))])
        m.initializers.append(onnx.numpy_helper.from_array(m.rng.random((4, 4), np.float32), "g"))
        h = m.node("Gemm", [h, "g", m.weight(4)], name="fallback")
        h = then(h, behind)
        h = m.conv(h, 4, 4, kernel=(1, 1)) if behind == "Reshape" else h
        h = m.node("MatMul", [h, m.weight(4, 4)])
    model = m.model([h])
    data = samples(8, 4, 4, 4)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    config = backend.tuning_space().default().with_fallback("fallback")
    quantized = backend.quantize(config).proto
    (fast,), (plain,) = run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False)
    assert np.abs(fast - plain).max() <= 1e-5 * np.abs(plain).max()
    executed = backend.executed(config)
    assert all(executed[op].integer for op in config.quantized_ops)
    assert not executed["fallback"].integer


@pytest.mark.parametrize("other", ["reader", "output", "pair"])
@pytest.mark.parametrize("behind", ["nothing", "Relu", "Clip"])
@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_product_whose_floats_are_wanted_runs_on_integers(
    op_type: str, behind: str, other: str
) -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    h = m.node(op_type, [x, m.weight(4, 4)], name="first")
    bounds = [m.const(np.float32(v)) for v in (0, 6)] if behind == "Clip" else []
    read = h if behind == "nothing" else m.node(behind, [h, *bounds])
    outputs = [m.node("MatMul", [read, m.weight(4, 4)], name="second")]
    ops = {"first": static(), "second": static()}
    if other == "output":
        outputs.append(h)
    elif other == "reader":
        outputs.append(m.node("Sigmoid", [h]))
    else:
        outputs.append(m.node("MatMul", [h, m.weight(4, 4)], name="third"))
        ops["third"] = static("uint8/asym/per_tensor/mse")
    model = m.model(outputs)
    data = samples(64, 4)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    executed = backend.executed(QuantConfig(ops))
    assert all(op.integer for op in executed.values())
    quantized = backend.quantize(QuantConfig(ops)).proto
    for fast, plain in zip(
        run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False), strict=True
    ):
        assert np.abs(fast - plain).max() <= 1e-5 * np.abs(plain).max()


@pytest.mark.parametrize("before", ["Tanh", "MatMul", "Gemm"])
def test_output_before_a_transpose_is_not_quantized(before: str) -> None:
    m = Maker()
    x = m.input("x", [4, 4])
    h = m.node("Tanh", [x]) if before == "Tanh" else m.node(before, [x, m.weight(4, 4)], name="a")
    y = m.node("MatMul", [m.node("Transpose", [h], perm=[1, 0]), m.weight(4, 4)], name="second")
    ops = {"second": static()} | ({} if before == "Tanh" else {"a": static()})
    data = samples(4, 4)
    backend = OnnxRuntimeBackend(m.model([y, h]), calibration_data=data)
    assert all(op.integer for op in backend.executed(QuantConfig(ops)).values())
    quantized = backend.quantize(QuantConfig(ops)).proto
    for fast, plain in zip(
        run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False), strict=True
    ):
        np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.mark.parametrize("behind", ["Sigmoid", "Gather", "fallback", "two", "pair", "output"])
@pytest.mark.parametrize("function", ["Relu", "Relu6", "Clip"])
@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_product_before_an_activation_function_runs_on_integers(
    op_type: str, function: str, behind: str
) -> None:
    m = Maker()
    h = m.node(op_type, [m.input("x", ["N", 4]), m.weight(4, 4)], name="first")
    if function == "Relu":
        h = m.node("Relu", [h])
    else:
        bounds = (0, 6) if function == "Relu6" else (-0.5, 0.5)
        h = m.node("Clip", [h, *(m.const(np.float32(v)) for v in bounds)])
    ops = {"first": static()}
    outputs = [h]
    if behind == "Sigmoid":
        outputs = [m.node("Sigmoid", [h])]
    elif behind != "output":
        if behind == "Gather":
            h = m.node("Gather", [h, m.const(np.array([3, 1, 0, 2]))], axis=1)
        outputs = [m.node("MatMul", [h, m.weight(4, 4)], name="second")]
        ops["second"] = FP32 if behind == "fallback" else static()
        if behind == "two":
            outputs.append(m.node("Sigmoid", [h]))
    data = samples(64, 4)
    backend = OnnxRuntimeBackend(m.model(outputs), calibration_data=data)
    config = QuantConfig(ops)
    executed = backend.executed(config)
    assert all(executed[op].integer for op in config.quantized_ops)
    quantized = backend.quantize(config).proto
    # Nothing is added where the runtime does it by itself.
    alone = behind == "output" or (behind == "pair" and function != "Clip")
    assert bool(nodes(quantized, "Max")) != alone
    for fast, plain in zip(
        run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False), strict=True
    ):
        assert np.abs(fast - plain).max() <= 1e-5 * np.abs(plain).max()


PASSING = {
    "Reshape": lambda m, h: m.node("Reshape", [h, m.const(np.array([0, 0, 6, 6]))]),
    "Transpose": lambda m, h: m.node("Transpose", [h], perm=[0, 1, 3, 2]),
    "MaxPool": lambda m, h: m.node("MaxPool", [h], kernel_shape=[2, 2]),
    "Identity": lambda m, h: m.node("Identity", [h]),
    "Squeeze": lambda m, h: m.node(
        "Squeeze", [m.node("Unsqueeze", [h, m.const(np.array([1]))]), m.const(np.array([1]))]
    ),
    "Slice": lambda m, h: m.node(
        "Slice", [h, m.const(np.array([1])), m.const(np.array([5])), m.const(np.array([2]))]
    ),
    "Split": lambda m, h: m.node(
        "Split", [h, m.const(np.array([4, 2]))], outputs=["left", "right"], axis=3
    ),
    "Resize": lambda m, h: m.node(
        "Resize", [h, "", m.const(np.array([1, 1, 2, 2], np.float32))], mode="nearest"
    ),
    "Gather": lambda m, h: m.node("Gather", [h, m.const(np.array([0, 3, 4]))], axis=2),
    "Pad": lambda m, h: m.node("Pad", [h, m.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))]),
    "GatherND": lambda m, h: m.node(
        "Unsqueeze",
        [
            m.node("GatherND", [h, m.const(np.array([[0, 0], [1, 1]]))]),
            m.const(np.array([0])),
        ],
    ),
    "Relu": lambda m, h: m.node("Relu", [m.node("MaxPool", [h], kernel_shape=[2, 2])]),
    "SpaceToDepth": lambda m, h: m.node("SpaceToDepth", [h], blocksize=2),
}


@pytest.mark.parametrize("between", PASSING)
def test_operators_that_pass_values_on(between: str) -> None:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 6, 6]), 2, 2, kernel=(1, 1))
    h = PASSING[between](m, h)
    channels = {"SpaceToDepth": 8}.get(between, 2)
    m.conv(h, channels, 3, kernel=(1, 1))
    outputs = ["Conv1_out", "right"] if between == "Split" else ["Conv1_out"]
    model = m.model(outputs)
    data = samples(8, 2, 6, 6)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    config = backend.tuning_space().default()
    quantized = backend.quantize(config).proto
    # The second convolution has the parameters of what the first one wrote.
    reader = maker(quantized, nodes(quantized, "Conv")[1].input[0])
    assert list(reader.input[1:]) == ["Conv0_out_scale", "Conv0_out_zero_point"]
    assert all(op.integer for op in backend.executed(config).values())
    for fast, plain in zip(
        run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False), strict=True
    ):
        assert np.abs(fast - plain).max() <= 0.01 * np.abs(plain).max()
    # Nothing is lost on the way: as if the first result were passed on in floats.
    alone = backend.quantize(config.with_fallback("Conv1")).proto
    passed = [run(tapped(proto), {"x": data}, optimized=False)[-1] for proto in (quantized, alone)]
    np.testing.assert_array_equal(*passed)


def tapped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what its second Conv reads as another output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name = nodes(copy, "Conv")[1].input[0]
    copy.graph.output.append(onnx.helper.make_tensor_value_info(name, FLOAT, None))
    return copy


@pytest.mark.parametrize(("minimum", "fused"), [(0.0, True), (-1.0, False), (None, False)])
def test_clip_is_fused_if_it_starts_at_zero(minimum: float | None, fused: bool) -> None:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 6, 6]), 2, 2, kernel=(1, 1))
    low = "" if minimum is None else m.const(np.float32(minimum))
    model = m.model([m.node("Tanh", [m.node("Clip", [h, low, m.const(np.float32(0.7))])])])
    data = samples(8, 2, 6, 6)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    config = backend.tuning_space().default()
    quantized = backend.quantize(config).proto
    (clip,) = nodes(quantized, "Clip")
    assert clip.output[0] == ("Clip0_out_float" if fused else "Clip0_out")
    assert backend.executed(config)["Conv0"].kernel == "QLinearConv"


def test_activation_with_two_readers_is_not_fused() -> None:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 6, 6]), 2, 2, kernel=(1, 1))
    model = m.model([m.node("Relu", [h]), m.node("Sigmoid", [h])])
    backend = OnnxRuntimeBackend(model, calibration_data=samples(8, 2, 6, 6))
    config = backend.tuning_space().default()
    assert nodes(backend.quantize(config).proto, "Conv")[0].output[0] == "Conv0_out_float"
    assert backend.executed(config)["Conv0"].integer


def test_shared_weight_in_two_configurations() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    weight = m.weight(4, 4, name="shared")
    names = ["channel", "tensor", "again", "floats"]
    model = m.model([m.node("MatMul", [x, weight], name=name) for name in names])
    data = samples(32, 4)
    per_tensor = static(weight="int8/sym/per_tensor/minmax")
    ops = {"channel": static(), "tensor": per_tensor, "again": static(), "floats": FP32}
    quantized = build(model, data, ops)
    sizes = Counter(tuple(t.dims) for t in quantized.graph.initializer if "shared" in t.name)
    # One in floats and two in integers; a scale and a zero point of each kind.
    assert sizes == {(4, 4): 3, (4,): 2, (): 2}
    w = initializer(model, "shared")
    x_hat = fake_quantize(data, A8)
    expected = {
        "channel": x_hat @ fake_quantize(w, W8, 1),
        "tensor": x_hat @ fake_quantize(w, "int8/sym/per_tensor/minmax"),
        "again": x_hat @ fake_quantize(w, W8, 1),
        "floats": data @ w,
    }
    for name, actual in zip(names, run(quantized, {"x": data}, optimized=False), strict=True):
        assert_close(actual, expected[name])


def test_unused_weights_are_removed() -> None:
    quantized = all_static(convnet(), samples(8, 2, 8, 8))
    names = {tensor.name for tensor in quantized.graph.initializer}
    assert not names & {tensor.name for tensor in convnet().graph.initializer}
    kept = build(convnet(), samples(8, 2, 8, 8), {"Conv0": static()})
    names = {tensor.name for tensor in kept.graph.initializer}
    assert {"c2", "c3", "c4", "c5"} <= names
    assert not names & {"c0", "c1"}


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_whole_layers(approach: str) -> None:
    model = fused_attention()
    data = {"ids": np.random.default_rng(0).integers(0, 20, (16, 5)).astype(np.int32)}
    # Without optimization these layers run on integers as well, which saturate where there are no
    # VNNI instructions, unless weights have 7 bits only.
    backend = OnnxRuntimeBackend(
        model, calibration_data=data, approach=approach, reduce_range=True
    )
    space = backend.tuning_space()
    assert [t.op_type for t in space.tunables] == [
        "EmbedLayerNormalization",
        "Attention",  # Both, which share their weight.
        "MatMul",
    ]
    config = space.default()
    quantized = backend.quantize(config).proto
    fixed = approach != "dynamic"
    assert bool(nodes(quantized, "DynamicQuantizeLinear")) != fixed
    assert len(nodes(quantized, "QuantizeLinear")) == 3 * fixed
    assert [op.kernel for op in backend.executed(config).values()] == [
        "QEmbedLayerNormalization",
        "QAttention",
        "QAttention",
        "MatMulIntegerToFloat" if fixed else "DynamicQuantizeMatMul",
    ]
    (exact,) = run(model, data)
    for optimized in (False, True):
        (actual,) = run(quantized, data, optimized=optimized)
        assert np.abs(actual - exact).max() <= 0.1 * np.abs(exact).max()
    mixed = config.with_fallback("Attention0")
    assert len(nodes(backend.quantize(mixed).proto, "Attention")) == 1
    (actual,) = run(backend.quantize(mixed).proto, data)
    assert np.abs(actual - exact).max() <= 0.1 * np.abs(exact).max()


def test_static_and_dynamic_layers_in_one_model() -> None:
    model = fused_attention()
    data = {"ids": np.random.default_rng(0).integers(0, 20, (16, 5)).astype(np.int32)}
    backend = OnnxRuntimeBackend(model, calibration_data=data, approach="auto")
    space = backend.tuning_space()
    (attention,) = (t for t in space.tunables if "Attention1" in t.ops)
    dynamic = {"Attention1": attention.quantized[-1]}
    config = space.default().with_ops(dynamic)
    quantized = backend.quantize(config).proto
    (found,) = nodes(quantized, "DynamicQuantizeLinear")
    assert found.input[0] == "Attention0_out"
    (exact,), (actual,) = run(model, data), run(quantized, data)
    assert np.abs(actual - exact).max() <= 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("opset", [17, 21, 23])
def test_signed_activations_pass_on(opset: int) -> None:
    # The runtime turns them into unsigned ones.
    m = Maker(opset)
    h = m.conv(m.input("x", ["N", 2, 6, 6]), 2, 2, kernel=(1, 1))
    h = m.node("Transpose", [h], perm=[0, 1, 3, 2])
    model = m.model([m.node("Sigmoid", [h]), m.conv(h, 2, 2, kernel=(1, 1))])
    data = samples(8, 2, 6, 6)
    ops = {"Conv0": static("int8/sym/per_tensor/minmax"), "Conv1": FP32}
    quantized = build(model, data, ops)
    for actual, exact in zip(run(quantized, {"x": data}), run(model, {"x": data}), strict=True):
        assert np.abs(actual - exact).max() <= 0.05 * np.abs(exact).max()


def test_names_in_use_are_avoided() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    h = m.node("Tanh", [x], outputs=["x_quantized"])
    h = m.node("Tanh", [h], outputs=["x_scale"])
    h = m.node("Add", [h, x], outputs=["x_dequantized"])
    y = m.node("MatMul", [x, m.weight(4, 4, name="w")])
    z = m.node("MatMul", [h, m.const(np.eye(4, dtype=np.float32), "w_quantized")])
    model = m.model([y, z])
    data = samples(8, 4)
    for actual, expected in zip(
        run(all_static(model, data), {"x": data}), run(model, {"x": data}), strict=True
    ):
        assert np.abs(actual - expected).max() <= 0.1


def test_subgraphs_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 4, 4])
    h = m.node("Relu", [m.conv(x, 2, 2, kernel=(1, 1))])
    branch = Maker()
    branch.node("MatMul", [h, branch.weight(4, 4, name="inner")], outputs=["then"])
    inner = branch.model(["then"]).graph
    positive = m.node("Greater", [m.node("ReduceMax", [x], keepdims=0), m.const(np.float32(0))])
    y = m.node("If", [positive], then_branch=inner, else_branch=inner)
    z = m.conv(h, 2, 2, kernel=(1, 1))
    model = m.model([y, z])
    data = samples(8, 2, 4, 4)
    quantized = all_static(model, data)
    (before,), (after,) = nodes(model, "If"), nodes(quantized, "If")
    assert before.attribute == after.attribute
    for fast, plain, exact in zip(
        run(quantized, {"x": data}),
        run(quantized, {"x": data}, optimized=False),
        run(model, {"x": data}),
        strict=True,
    ):
        assert np.abs(fast - plain).max() <= 0.02 * np.abs(plain).max()
        assert np.abs(plain - exact).max() <= 0.05 * np.abs(exact).max()


def test_quantized_tensor_that_is_an_output() -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 4, 4])
    h = m.conv(x, 2, 2, kernel=(1, 1))
    pooled = m.node("MaxPool", [h], kernel_shape=[2, 2])
    model = m.model([h, pooled, m.conv(pooled, 2, 2, kernel=(1, 1))])
    data = samples(8, 2, 4, 4)
    quantized = all_static(model, data)
    assert [v.name for v in quantized.graph.output] == [v.name for v in model.graph.output]
    for actual, exact in zip(run(quantized, {"x": data}), run(model, {"x": data}), strict=True):
        assert np.abs(actual - exact).max() <= 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("opset", [10, 11, 12, 13, 16, 17, 19, 21, 23, 25])
def test_every_opset(opset: int) -> None:
    m = Maker(opset)
    x = m.input("x", ["N", 2, 8, 8])
    h = m.node("Relu", [m.conv(x, 2, 4)])
    h = m.node("Flatten", [m.node("MaxPool", [h], kernel_shape=[2, 2])])
    y = m.node("Gemm", [h, m.weight(100, 5), m.weight(5)])
    model = m.model([y])
    data = samples(8, 2, 8, 8)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    config = backend.tuning_space().default()
    assert all(op.integer for op in backend.executed(config).values())
    quantized = backend.quantize(config).proto
    assert quantized.opset_import[0].version == max(opset, 13)
    (fast,), (plain,) = run(quantized, {"x": data}), run(quantized, {"x": data}, optimized=False)
    (exact,) = run(model, {"x": data})
    assert np.abs(fast - plain).max() <= 0.02 * np.abs(plain).max()
    assert np.abs(plain - exact).max() <= 0.05 * np.abs(exact).max()


def test_reduced_range_uses_seven_bits() -> None:
    data = samples(8, 2, 8, 8)
    for weight in (W8, "uint8/asym/per_tensor/minmax"):
        ops = {name: static(weight=weight) for name in ("Conv0", "Conv1", "Gemm0")}
        quantized = build(convnet(), data, ops, reduce_range=True)
        for tensor in quantized.graph.initializer:
            if tensor.name in ("c0_quantized", "c2_quantized", "c4_quantized"):
                values = onnx.numpy_helper.to_array(tensor).astype(int)
                assert values.max() - values.min() <= 127
                assert np.abs(values).max() <= (63 if weight == W8 else 127)
        (actual,), (exact,) = run(quantized, {"x": data}), run(convnet(), {"x": data})
        assert np.abs(actual - exact).max() <= 0.1 * np.abs(exact).max()
