from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import exact_options
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
import pytest

from optuna_quant.backends.onnxruntime.dynamic.dynamic import apply_dynamic
from optuna_quant.backends.onnxruntime.executed.executed import executed_ops
from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


Arrays = Mapping[str, NDArray[Any]]

ACTIVATION = TensorConfig("uint8", "asym", "per_tensor", "minmax")


def dynamic(
    dtype: str = "int8",
    scheme: str = "sym",
    granularity: str = "per_channel",
    algorithm: str = "minmax",
) -> OpConfig:
    return OpConfig("dynamic", ACTIVATION, TensorConfig(dtype, scheme, granularity, algorithm))


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[str | int]],
    outputs: Sequence[str],
    initializers: Arrays,
    opset: int = 17,
    dtypes: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    types = dtypes or {}
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(n, types.get(n, onnx.TensorProto.FLOAT), shape)
            for n, shape in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, feeds: Arrays) -> list[NDArray[Any]]:
    """The outputs of a model, without the saturation that some processors' kernels have."""
    options = exact_options()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def rewritten(model: onnx.ModelProto, ops: Mapping[str, OpConfig], **kw: Any) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    apply_dynamic(changed, ops, **kw)
    return changed


def kernels(model: onnx.ModelProto, *ops: str) -> list[str]:
    done = executed_ops(model, ops, {}, providers=["CPUExecutionProvider"])
    return [done[op].kernel for op in ops]


def on_grid(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """What DynamicQuantizeLinear makes of an activation, back in floats."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255)
    zero_point = np.clip(np.rint(-low / scale), 0, 255)
    integers = np.clip(np.rint(x / scale) + zero_point, 0, 255)
    return np.asarray((integers - zero_point) * np.float64(scale))


def weight_on_grid(
    weight: NDArray[np.float32], config: OpConfig, axis: int | None
) -> NDArray[np.float64]:
    """A weight after quantization, back in floats."""
    assert config.weight is not None
    w = config.weight
    axis = axis if w.granularity == "per_channel" else None
    values, scale, zero_point = quantize_weight(weight, w.dtype, w.scheme, axis, w.algorithm)
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    centred = values.astype(np.float64) - zero_point.astype(np.float64).reshape(shape)
    return np.asarray(centred * scale.astype(np.float64).reshape(shape))


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    # Far below a step of either grid: only the order of float operations differs.
    np.testing.assert_allclose(actual, expected, atol=2e-5 * float(np.abs(expected).max()) + 1e-6)


WEIGHTS = [
    dynamic("int8", "sym", "per_channel"),
    dynamic("int8", "sym", "per_tensor"),
    dynamic("uint8", "asym", "per_tensor"),
    dynamic("uint8", "asym", "per_channel"),
    dynamic("int8", "asym", "per_channel"),
    dynamic("uint8", "sym", "per_channel"),
    dynamic("int8", "sym", "per_channel", "mse"),
]


def matmul_model(
    input_shape: Sequence[str | int], weight: NDArray[np.float32], bias: bool = False
) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")]
    initializers = {"w": weight}
    if bias:
        nodes.append(helper.make_node("Add", ["y", "b"], ["z"], "add"))
        initializers["b"] = normal(weight.shape[-1], seed=5)
    return make_model(nodes, {"x": input_shape}, ["z" if bias else "y"], initializers)


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("config", WEIGHTS, ids=lambda config: config.weight.label)
@pytest.mark.parametrize("shape", [("batch", 12), ("batch", 5, 12), ("a", "b", "c", 12)])
def test_matmul_equals_product_of_quantized_values(
    config: OpConfig, shape: Sequence[str | int], optimized: bool
) -> None:
    weight = normal(12, 7) * np.linspace(0.1, 3.0, 7, dtype=np.float32)
    model = rewritten(matmul_model(shape, weight), {"mm": config})
    for batch in (1, 3):
        x = normal(*(axis if isinstance(axis, int) else batch for axis in shape), seed=batch) + 0.5
        # The runtime without optimization would saturate on some processors; the reference cannot.
        (y,) = run(model, {"x": x}) if optimized else ReferenceEvaluator(model).run(None, {"x": x})
        close(y, on_grid(x) @ weight_on_grid(weight, config, 1))


@pytest.mark.parametrize("config", WEIGHTS, ids=lambda config: config.weight.label)
@pytest.mark.parametrize("weight_shape", [(4, 12, 7), (12,)])
def test_matmul_with_stack_or_vector_as_weight(
    config: OpConfig, weight_shape: tuple[int, ...]
) -> None:
    weight = normal(*weight_shape)
    model = rewritten(matmul_model(("batch", 4, 3, 12), weight), {"mm": config})
    x = normal(2, 4, 3, 12, seed=1)
    axis = -1 if len(weight_shape) > 1 else None
    (y,) = run(model, {"x": x})
    if axis is None:
        assert config.weight is not None
        w = config.weight
        config = dynamic(w.dtype, w.scheme, "per_tensor", w.algorithm)
    close(y, on_grid(x) @ weight_on_grid(weight, config, axis))


@pytest.mark.parametrize("config", WEIGHTS, ids=lambda config: config.weight.label)
def test_matmul_is_one_fused_kernel_with_its_bias(config: OpConfig) -> None:
    model = rewritten(matmul_model(("batch", 12), normal(12, 7), bias=True), {"mm": config})
    done = executed_ops(model, ["mm", "add"], {}, providers=["CPUExecutionProvider"])
    assert done["mm"].kernel == "DynamicQuantizeMatMul"
    assert done["mm"].integer
    assert done["add"].kernel == "DynamicQuantizeMatMul"


@given(
    data=st.data(),
    config=st.sampled_from(WEIGHTS),
    rows=st.integers(1, 4),
    depth=st.integers(1, 40),
    columns=st.integers(1, 9),
    shift=st.sampled_from([-3.0, 0.0, 0.2, 3.0]),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
)
@settings(max_examples=examples(60))
def test_matmul_of_any_shape_and_range(
    data: st.DataObject,
    config: OpConfig,
    rows: int,
    depth: int,
    columns: int,
    shift: float,
    size: float,
) -> None:
    seed = data.draw(st.integers(0, 1000))
    weight = normal(depth, columns, seed=seed)
    model = rewritten(matmul_model(("n", depth), weight), {"mm": config})
    x = (normal(rows, depth, seed=seed + 1) + np.float32(shift)) * np.float32(size)
    exact = np.abs(on_grid(x)) @ np.abs(weight_on_grid(weight, config, 1))
    (y,) = run(model, {"x": x})
    error = np.abs(y - on_grid(x) @ weight_on_grid(weight, config, 1))
    assert error.max() <= 2e-5 * exact.max() + 1e-9


def test_zeros_stay_zeros() -> None:
    weight = normal(12, 7)
    weight[:, 3] = 0
    for config in WEIGHTS:
        model = rewritten(matmul_model(("n", 12), weight), {"mm": config})
        assert not np.any(run(model, {"x": np.zeros((2, 12), np.float32)})[0])
        assert not np.any(run(model, {"x": normal(2, 12)})[0][:, 3])


GEMMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "transB": {"transB": 1},
    "transA": {"transA": 1},
    "factors": {"alpha": 0.5, "beta": -2.0},
    "negative": {"alpha": -0.75, "transB": 1},
    "no_bias": {"beta": 0.0},
}


@pytest.mark.parametrize("bias_shape", [None, (7,), (1, 7), (1,), (), (3, 1), (3, 7), "input"])
@pytest.mark.parametrize("attributes", GEMMS.values(), ids=GEMMS)
@pytest.mark.parametrize(
    "config", [WEIGHTS[0], WEIGHTS[2], WEIGHTS[3]], ids=lambda config: config.weight.label
)
def test_gemm_equals_product_of_quantized_values(
    config: OpConfig, attributes: dict[str, Any], bias_shape: Any
) -> None:
    weight = normal(7, 12) if attributes.get("transB") else normal(12, 7)
    x = normal(12, 3, seed=2) if attributes.get("transA") else normal(3, 12, seed=2)
    inputs: dict[str, Sequence[str | int]] = {"x": ["a", "b"]}
    feeds, initializers = {"x": x}, {"w": weight}
    bias = None
    if bias_shape == "input":
        bias = normal(3, 7, seed=3)
        inputs["c"], feeds["c"] = ["m", "n"], bias
    elif bias_shape is not None:
        bias = np.asarray(normal(21, seed=3)[: int(np.prod(bias_shape))].reshape(bias_shape))
        initializers["c"] = bias
    names = ["x", "w"] if bias is None else ["x", "w", "c"]
    node = helper.make_node("Gemm", names, ["y"], "gemm", **attributes)
    model = rewritten(make_model([node], inputs, ["y"], initializers), {"gemm": config})
    (y,) = run(model, feeds)
    w = weight_on_grid(weight, config, 0 if attributes.get("transB") else 1)
    product = on_grid(x.T if attributes.get("transA") else x) @ (
        w.T if attributes.get("transB") else w
    )
    expected = product * attributes.get("alpha", 1.0)
    if bias is not None:
        expected = expected + bias * attributes.get("beta", 1.0)
    close(y, expected)


@pytest.mark.parametrize("bias_shape", [(7,), (1, 7)])
def test_gemm_is_one_fused_kernel(bias_shape: tuple[int, ...]) -> None:
    node = helper.make_node("Gemm", ["x", "w", "c"], ["y"], "gemm", transB=1, beta=0.5)
    tensors = {"w": normal(7, 12), "c": normal(7).reshape(bias_shape)}
    model = rewritten(make_model([node], {"x": ["n", 12]}, ["y"], tensors), {"gemm": dynamic()})
    assert kernels(model, "gemm") == ["DynamicQuantizeMatMul"]


def convolved(x: NDArray[Any], w: NDArray[Any], **attributes: Any) -> NDArray[Any]:
    """Convolution in plain numpy: NCHW, any number of spatial axes."""
    rank = x.ndim - 2
    strides = attributes.get("strides", [1] * rank)
    pads = attributes.get("pads", [0] * 2 * rank)
    dilations = attributes.get("dilations", [1] * rank)
    group = attributes.get("group", 1)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    kernel = w.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *sizes))
    inner, outer = w.shape[1], w.shape[0] // group
    for g in range(group):
        channels, filters = slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer)
        for at in np.ndindex(*kernel):
            starts = [k * d for k, d in zip(at, dilations, strict=True)]
            window = tuple(
                slice(start, start + (n - 1) * s + 1, s)
                for start, n, s in zip(starts, sizes, strides, strict=True)
            )
            part = x[(slice(None), channels, *window)]
            y[:, filters] += np.einsum("nc...,oc->no...", part, w[(filters, slice(None), *at)])
    return y


CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": ((4, 8, 8), (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "depthwise": ((4, 9, 9), (4, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
    "groups": ((4, 9, 9), (6, 2, 3, 3), {"group": 2, "dilations": [2, 2]}),
    "pointwise": ((4, 5, 5), (6, 4, 1, 1), {}),
    "one_axis": ((4, 12), (6, 4, 3), {"pads": [1, 2]}),
    "three_axes": ((2, 5, 6, 4), (3, 2, 3, 3, 3), {"pads": [1, 1, 1, 0, 0, 0]}),
}


@cache
def multiplies_signed_convolutions() -> bool:
    """Whether the runtime's ConvInteger takes weights of int8, which are not offered for Conv."""
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"])
    model = make_model([node], {"x": ["n", 1, 2, 2]}, ["y"], {"w": np.ones((1, 1, 2, 2), np.int8)})
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except NoKernel:
        return False
    return True


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("case", CONVS.values(), ids=CONVS)
@pytest.mark.parametrize(
    "config",
    [WEIGHTS[0], WEIGHTS[1], WEIGHTS[2], WEIGHTS[5]],
    ids=lambda config: config.weight.label,
)
def test_conv_equals_convolution_of_quantized_values(
    config: OpConfig,
    case: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]],
    biased: bool,
) -> None:
    if config.weight.dtype == "int8" and not multiplies_signed_convolutions():
        pytest.skip("the runtime's ConvInteger takes no weights of int8")
    shape, weight_shape, attributes = case
    weight, bias = normal(*weight_shape), normal(weight_shape[0], seed=4)
    tensors = {"w": weight, "b": bias} if biased else {"w": weight}
    node = helper.make_node("Conv", ["x", *tensors], ["y"], "conv", **attributes)
    model = make_model([node], {"x": ["n", *shape]}, ["y"], tensors)
    changed = rewritten(model, {"conv": config})
    x = normal(2, *shape, seed=6) + 0.3
    expected = convolved(on_grid(x), weight_on_grid(weight, config, 0), **attributes)
    if biased:
        expected = expected + bias.reshape(-1, *[1] * (len(shape) - 1))
    close(run(changed, {"x": x})[0], expected)
    assert kernels(changed, "conv") == ["ConvInteger"]


def test_conv_with_a_bias_that_is_computed() -> None:
    config = dynamic("uint8", "asym", "per_tensor")  # Which is what is offered.
    weight, bias = normal(6, 4, 3, 3), normal(6, seed=1)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv")
    model = make_model([node], {"x": ["n", 4, 6, 6], "b": [6]}, ["y"], {"w": weight})
    x = normal(2, 4, 6, 6, seed=2)
    expected = convolved(on_grid(x), weight_on_grid(weight, config, 0))
    (y,) = run(rewritten(model, {"conv": config}), {"x": x, "b": bias})
    close(y, expected + bias.reshape(-1, 1, 1))


@pytest.mark.parametrize(
    ("activation", "parameters", "function"),
    [
        ("Relu", [], lambda y: np.maximum(y, 0)),
        ("Clip", [0.0, 1.5], lambda y: np.clip(y, 0, 1.5)),
        ("LeakyRelu", [0.1], lambda y: np.where(y > 0, y, 0.1 * y)),
        ("Tanh", [], np.tanh),
    ],
)
def test_fused_conv_keeps_its_sum_and_activation(
    activation: str, parameters: list[float], function: Callable[[Any], Any]
) -> None:
    weight, bias = normal(4, 4, 3, 3), normal(4, seed=1)
    keywords: dict[str, Any] = {"activation_params": parameters} if parameters else {}
    node = helper.make_node(
        "FusedConv",
        ["x", "w", "b", "x"],
        ["y"],
        "conv",
        domain="com.microsoft",
        pads=[1, 1, 1, 1],
        activation=activation,
        **keywords,
    )
    model = make_model([node], {"x": ["n", 4, 6, 6]}, ["y"], {"w": weight, "b": bias})
    config = dynamic("uint8", "asym", "per_tensor")
    x = normal(2, 4, 6, 6, seed=2)
    expected = convolved(on_grid(x), weight_on_grid(weight, config, 0), pads=[1] * 4)
    expected = function(expected + bias.reshape(-1, 1, 1) + x)
    close(run(rewritten(model, {"conv": config}), {"x": x})[0], expected)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "config", [WEIGHTS[1], WEIGHTS[2]], ids=lambda config: config.weight.label
)
def test_gather_reads_an_integer_table(config: OpConfig, axis: int) -> None:
    table = normal(10, 6) + 1
    node = helper.make_node("Gather", ["t", "i"], ["y"], "gather", axis=axis)
    dtypes = {"i": onnx.TensorProto.INT64}
    model = make_model([node], {"i": ["n", "m"]}, ["y"], {"t": table}, dtypes=dtypes)
    changed = rewritten(model, {"gather": config})
    indices = np.array([[0, 5], [3, -1], [2, 2]])
    (y,) = run(changed, {"i": indices})
    close(y, np.take(weight_on_grid(table, config, None), indices, axis=axis))
    assert {i.data_type for i in changed.graph.initializer if list(i.dims) == [10, 6]} <= {
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
    }
    assert kernels(changed, "gather") == ["Gather"]


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("config", WEIGHTS[:3], ids=lambda config: config.weight.label)
def test_lstm_equals_float_lstm_with_quantized_weights(config: OpConfig, directions: int) -> None:
    hidden, size = 6, 5
    w, r = normal(directions, 4 * hidden, size), normal(directions, 4 * hidden, hidden, seed=1)
    tensors = {"w": w, "r": r, "b": normal(directions, 8 * hidden, seed=2)}
    node = helper.make_node(
        "LSTM",
        ["x", "w", "r", "b"],
        ["y", "h", "c"],
        "lstm",
        hidden_size=hidden,
        direction="bidirectional" if directions == 2 else "forward",
    )
    inputs = {"x": ["t", "n", size]}
    model = make_model([node], inputs, ["y", "h"], tensors)
    x = normal(7, 3, size, seed=3)
    got = run(rewritten(model, {"lstm": config}), {"x": x})

    def flat_grid(weight: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = weight.reshape(-1, weight.shape[2])
        return weight_on_grid(flat, config, 0).reshape(weight.shape).astype(np.float32)

    reference = make_model(
        [node], inputs, ["y", "h"], {**tensors, "w": flat_grid(w), "r": flat_grid(r)}
    )
    for actual, expected in zip(got, run(reference, {"x": x}), strict=True):
        # The rest is the quantization of x and of the state, which has 255 steps.
        np.testing.assert_allclose(actual, expected, atol=0.04)
    assert kernels(rewritten(model, {"lstm": config}), "lstm") == ["DynamicQuantizeLSTM"]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("config", WEIGHTS[:4], ids=lambda config: config.weight.label)
def test_attention_equals_float_attention_on_quantized_values(
    config: OpConfig, biased: bool
) -> None:
    width = 8
    weight, bias = normal(width, 3 * width), biased * normal(3 * width, seed=1)
    inputs = {"x": ["n", "t", width]}

    def attention(*names: str) -> onnx.NodeProto:
        options = {"domain": "com.microsoft", "num_heads": 2}
        return helper.make_node("Attention", names, ["y"], "attention", **options)

    node = attention("x", "w", "b") if biased else attention("x", "w")
    tensors = {"w": weight, "b": bias} if biased else {"w": weight}
    changed = rewritten(make_model([node], inputs, ["y"], tensors), {"attention": config})
    x = normal(2, 5, width, seed=2)
    onto = weight_on_grid(weight, config, 1).astype(np.float32)
    # With a bias in any case: older versions of the runtime crash on floats without one.
    exact = {"w": onto, "b": bias.astype(np.float32)}
    reference = make_model([attention("x", "w", "b")], inputs, ["y"], exact)
    (expected,) = run(reference, {"x": on_grid(x).astype(np.float32)})
    close(run(changed, {"x": x})[0], expected)
    assert kernels(changed, "attention") == ["QAttention"]


def test_embed_layer_normalization_reads_integer_tables() -> None:
    config = dynamic("uint8", "asym", "per_tensor")
    tables = {
        "word": normal(20, 8),
        "position": normal(6, 8, seed=1),
        "gamma": normal(8, seed=2) + 1,
        "beta": normal(8, seed=3),
    }
    node = helper.make_node(
        "EmbedLayerNormalization",
        ["ids", "", "word", "position", "", "gamma", "beta"],
        ["y", "mask"],
        "embed",
        domain="com.microsoft",
        epsilon=1e-5,
    )
    types = {"ids": onnx.TensorProto.INT32}
    model = make_model([node], {"ids": ["n", 5]}, ["y"], tables, dtypes=types)
    ids = np.arange(10, dtype=np.int32).reshape(2, 5)
    (y,) = run(rewritten(model, {"embed": config}), {"ids": ids})
    grid = {name: weight_on_grid(table, config, None) for name, table in tables.items()}
    total = grid["word"][ids] + grid["position"][:5]
    centred = total - total.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, centred / spread * grid["gamma"] + grid["beta"], atol=1e-4)


# What is shared, kept and removed.


def two_matmuls() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["a"], "one"),
        helper.make_node("MatMul", ["r", "v"], ["b"], "two"),
    ]
    tensors = {"w": normal(12, 7), "v": normal(12, 7, seed=1)}
    return make_model(nodes, {"x": ["n", 12]}, ["a", "b"], tensors)


def test_readers_of_one_tensor_share_its_quantization() -> None:
    model = rewritten(two_matmuls(), {"one": dynamic(), "two": dynamic(granularity="per_tensor")})
    types = [node.op_type for node in model.graph.node]
    assert types.count("DynamicQuantizeLinear") == 1
    assert kernels(model, "one", "two") == ["MatMulIntegerToFloat"] * 2
    x = normal(3, 12, seed=3)
    for got, name in zip(run(model, {"x": x}), ("w", "v"), strict=True):
        weight = {i.name: numpy_helper.to_array(i) for i in two_matmuls().graph.initializer}[name]
        config = dynamic(granularity="per_channel" if name == "w" else "per_tensor")
        close(got, on_grid(np.maximum(x, 0)) @ weight_on_grid(weight, config, 1))


def test_other_nodes_stay_and_unused_weights_go() -> None:
    before = two_matmuls()
    after = rewritten(before, {"one": dynamic(), "two": FP32})
    nodes = {node.name: node for node in after.graph.node}
    assert nodes["two"] == before.graph.node[2]
    assert nodes["relu"] == before.graph.node[0]
    assert nodes["one"].op_type == "MatMulInteger"
    names = {tensor.name for tensor in after.graph.initializer}
    assert "w" not in names
    assert "v" in names
    x = normal(3, 12)
    np.testing.assert_allclose(run(after, {"x": x})[1], run(before, {"x": x})[1], rtol=1e-5)


def test_weight_that_a_float_op_uses_too_stays() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("MatMul", ["a", "w"], ["b"], "two"),
    ]
    model = make_model(nodes, {"x": ["n", 8]}, ["b"], {"w": normal(8, 8)})
    one = rewritten(model, {"one": dynamic(), "two": FP32})
    assert "w" in {tensor.name for tensor in one.graph.initializer}
    both = rewritten(model, {"one": dynamic(), "two": dynamic()})
    sizes = [list(tensor.dims) for tensor in both.graph.initializer]
    assert sizes.count([8, 8]) == 1
    assert "w" not in {tensor.name for tensor in both.graph.initializer}


def test_weight_that_a_subgraph_uses_stays() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["copy"], "inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("copy", onnx.TensorProto.FLOAT, [12, 7])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "mm"),
        helper.make_node("If", ["on"], ["z"], "if", then_branch=branch, else_branch=branch),
    ]
    types = {"on": onnx.TensorProto.BOOL}
    tensors = {"w": normal(12, 7)}
    model = make_model(nodes, {"x": ["n", 12], "on": []}, ["y", "z"], tensors, dtypes=types)
    changed = rewritten(model, {"mm": dynamic()})
    feeds = {"x": normal(2, 12), "on": np.array(True)}
    np.testing.assert_array_equal(run(changed, feeds)[1], tensors["w"])


def test_names_that_are_taken_are_not_taken_again() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["x_dynamic_quantized"], "mm_cast"),
        helper.make_node("MatMul", ["x", "w"], ["mm_integers"], "mm"),
        helper.make_node("Add", ["mm_integers", "w_quantized"], ["y"], "add"),
    ]
    tensors = {"w": normal(12, 7), "w_quantized": normal(7)}
    inputs = {"x": ["n", 12]}
    model = make_model(nodes, inputs, ["y", "x_dynamic_quantized"], tensors)
    changed = rewritten(model, {"mm": dynamic()})
    x = normal(2, 12, seed=9)
    y, relu = run(changed, {"x": x})
    close(y, on_grid(x) @ weight_on_grid(tensors["w"], dynamic(), 1) + tensors["w_quantized"])
    np.testing.assert_array_equal(relu, np.maximum(x, 0))


def test_nothing_dynamic_changes_nothing() -> None:
    model = two_matmuls()
    assert rewritten(model, {"one": FP32}) == model


def test_reduced_range_uses_7_bits() -> None:
    weight = normal(12, 7)
    for config in WEIGHTS:
        assert config.weight is not None
        model = rewritten(matmul_model(("n", 12), weight), {"mm": config}, reduce_range=True)
        (integers,) = (
            numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if list(tensor.dims) == [12, 7]
        )
        assert int(integers.max()) - int(integers.min()) <= 127
        assert int(integers.max()) - int(integers.min()) >= 100
        x = normal(3, 12, seed=1)
        (y,) = run(model, {"x": x})
        error = np.abs(y - on_grid(x) @ weight).max()
        exact = np.abs(on_grid(x) @ weight_on_grid(weight, config, 1) - on_grid(x) @ weight).max()
        assert error < 4 * exact + 1e-3


def test_external_weights_are_read_by_load_and_cached() -> None:
    model = matmul_model(("n", 12), normal(12, 7))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="elsewhere"))
    weight = normal(12, 7, seed=8)
    cache: dict[Any, Any] = {}
    changed = rewritten(model, {"mm": dynamic()}, load=lambda _: weight, cache=cache)
    x = normal(2, 12)
    expected = on_grid(x) @ weight_on_grid(weight, dynamic(), 1)
    close(run(changed, {"x": x})[0], expected)
    assert len(cache) == 1
    assert rewritten(model, {"mm": dynamic()}, load=lambda _: weight, cache=cache) == changed
    other = dynamic(granularity="per_tensor")
    rewritten(model, {"mm": other}, load=lambda _: weight, cache=cache)
    assert len(cache) == 2


# What is refused.


def refused(model: onnx.ModelProto, ops: Mapping[str, OpConfig], *words: str) -> None:
    before = model.SerializeToString(deterministic=True)
    with pytest.raises(ValueError) as error:
        apply_dynamic(model, ops)
    for word in words:
        assert word in str(error.value)
    assert model.SerializeToString(deterministic=True) == before


def test_product_of_activations_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    model = make_model([node], {"x": ["n", 4], "w": [4, 4]}, ["y"], {})
    refused(model, {"mm": dynamic()}, "'mm'", "MatMul", "'w'", "not a constant")


def test_weight_that_callers_can_replace_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    model = make_model([node], {"x": ["n", 4], "w": [4, 4]}, ["y"], {"w": normal(4, 4)})
    refused(model, {"mm": dynamic()}, "'mm'", "not a constant")


def test_weight_of_another_type_is_refused() -> None:
    node = helper.make_node("Gather", ["t", "i"], ["y"], "gather")
    dtypes = {"i": onnx.TensorProto.INT64}
    table = {"t": np.arange(4)}
    model = make_model([node], {"i": ["n"]}, ["y"], table, dtypes=dtypes)
    refused(model, {"gather": dynamic(granularity="per_tensor")}, "'gather'", "INT64")


def test_op_in_a_subgraph_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["inner_y"], "inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("inner_y", onnx.TensorProto.FLOAT, ["n", 7])],
    )
    node = helper.make_node("If", ["on"], ["y"], "if", then_branch=branch, else_branch=branch)
    types = {"on": onnx.TensorProto.BOOL}
    inputs = {"x": ["n", 12], "on": []}
    model = make_model([node], inputs, ["y"], {"w": normal(12, 7)}, dtypes=types)
    refused(model, {"inner": dynamic()}, "'inner'", "subgraph")


def test_unknown_op_is_refused_even_if_others_are_there() -> None:
    refused(two_matmuls(), {"one": dynamic(), "three": dynamic()}, "no op 'three'")


def test_op_type_without_dynamic_mode_is_refused() -> None:
    refused(two_matmuls(), {"relu": dynamic()}, "'relu'", "Relu", "MatMul")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (OpConfig("dynamic", ACTIVATION), "weight"),
        (OpConfig("dynamic", ACTIVATION, TensorConfig("int4", "sym")), "int4"),
        (
            OpConfig("dynamic", TensorConfig("int8", "sym"), TensorConfig("int8", "sym")),
            "int8/sym",
        ),
        (
            OpConfig("dynamic", None, TensorConfig("int8", "sym", "per_group", "minmax", 32)),
            "per_group",
        ),
    ],
)
def test_settings_without_a_kernel_are_refused(config: OpConfig, word: str) -> None:
    refused(two_matmuls(), {"one": config}, "'one'", word)


FUSED_INPUTS = {
    "Attention": ["x", "w", "b", "", "", "x"],
    "LSTM": ["x", "w", "w"],
    "EmbedLayerNormalization": ["x", "", "w", "w", "", "b", "b", "", "x"],
}


@pytest.mark.parametrize(
    ("op_type", "domain", "attributes", "word"),
    [
        ("Attention", "com.microsoft", {}, "attention bias"),
        ("Attention", "com.microsoft", {"qkv_hidden_sizes": [4, 4, 8]}, "sizes of its own"),
        ("LSTM", "", {"layout": 1}, "first axis"),
        ("EmbedLayerNormalization", "com.microsoft", {}, "position ids"),
    ],
)
def test_what_no_quantized_kernel_does_is_refused(
    op_type: str, domain: str, attributes: dict[str, Any], word: str
) -> None:
    inputs = FUSED_INPUTS[op_type]
    node = helper.make_node(op_type, inputs, ["y"], "op", domain=domain, **attributes)
    tensors = {"w": normal(1, 4, 4), "b": normal(4)}
    model = make_model([node], {"x": ["n", "m", 4]}, ["y"], tensors)
    refused(model, {"op": dynamic()}, "'op'", op_type, word, "fp32")


def test_asymmetric_conv_weight_per_channel_is_refused() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    tensors = {"w": normal(4, 4, 3, 3)}
    model = make_model([node], {"x": ["n", 4, 6, 6]}, ["y"], tensors)
    refused(model, {"conv": dynamic("uint8", "asym", "per_channel")}, "'conv'", "per_tensor")


def test_old_opset_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    model = make_model([node], {"x": ["n", 4]}, ["y"], {"w": normal(4, 4)}, opset=10)
    refused(model, {"mm": dynamic()}, "opset 11", "10")
