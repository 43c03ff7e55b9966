"""No sum of an integer kernel leaves 32 bits: expected values are products in 64-bit floats."""

from __future__ import annotations

from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import exact_options
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.calibration.accumulator import ActivationSteps
from optuna_quant.backends.onnxruntime.calibration.accumulator import fit_accumulator
from optuna_quant.backends.onnxruntime.model.weights import quantized
from optuna_quant.space.config import TensorConfig


Floats = NDArray[np.float64]
FORMS = (
    "MatMul",
    "Gemm",
    "Gemm transB",
    "Gemm factors",
    "Conv",
    "Conv 2x2",
    "depthwise",
    "ConvTranspose",
)


def layer(form: str, w: Floats, b: Floats | None, m: Maker) -> tuple[str, list[int]]:
    """A layer with a weight of (inputs, outputs), and the shape of its input."""
    inputs, outputs = w.shape
    weight = w.astype(np.float32)
    bias = [] if b is None else [m.const(b.astype(np.float32))]
    if form == "MatMul":
        x = m.input("x", ["N", inputs])
        y = m.node("MatMul", [x, m.const(weight)])
        return (m.node("Add", [y, *bias]) if bias else y), [inputs]
    if form == "left":
        x = m.input("x", ["N", inputs, 1])
        y = m.node("MatMul", [m.const(np.ascontiguousarray(weight.T)), x])
        return m.node("Flatten", [y]), [inputs, 1]
    if form.startswith("Gemm"):
        x = m.input("x", ["N", inputs])
        if form == "Gemm transB":
            return m.node("Gemm", [x, m.const(weight.T.copy()), *bias], transB=1), [inputs]
        if form == "Gemm factors":
            halved = [m.const(np.float32(4) * b.astype(np.float32))] if b is not None else []
            y = m.node("Gemm", [x, m.const(weight * 8), *halved], alpha=0.125, beta=0.25)
            return y, [inputs]
        return m.node("Gemm", [x, m.const(weight), *bias]), [inputs]
    if form == "depthwise":
        # Each output has inputs of its own: a kernel as large as the image.
        x = m.input("x", ["N", outputs, 1, inputs])
        kernel = weight.T.reshape(outputs, 1, 1, inputs)
        y = m.node("Conv", [x, m.const(kernel), *bias], group=outputs)
        return m.node("Flatten", [y]), [outputs, 1, inputs]
    if form == "ConvTranspose":
        x = m.input("x", ["N", inputs, 1, 1])
        y = m.node("ConvTranspose", [x, m.const(weight.reshape(inputs, outputs, 1, 1)), *bias])
        return m.node("Flatten", [y]), [inputs, 1, 1]
    side = 2 if form == "Conv 2x2" else 1
    channels = inputs // side**2
    x = m.input("x", ["N", channels, side, side])
    kernel = weight.T.reshape(outputs, channels, side, side)
    y = m.node("Conv", [x, m.const(kernel), *bias])
    return m.node("Flatten", [y]), [channels, side, side]


def quantized_outputs(
    model: onnx.ModelProto, x: NDArray[np.float32], approach: str, granularity: str
) -> NDArray[Any]:
    backend = OnnxRuntimeBackend(
        model,
        calibration_data=x,
        approach=approach,
        session_options=exact_options(),
    )
    on_request = any(node.op_type == "ConvTranspose" for node in model.graph.node)
    space = backend.tuning_space(
        op_types="all" if on_request else "default",
        op_type_dict={".*": {"weight": {"granularity": [granularity]}}},
    )
    return np.asarray(backend.quantize(space.default()).run({"x": x})[0])


def check(
    form: str,
    x: Floats,
    w: Floats,
    b: Floats | None,
    *,
    approach: str = "static",
    granularity: str = "per_channel",
) -> None:
    m = Maker()
    y, shape = layer(form, w, b, m)
    if form == "depthwise":
        feed = np.repeat(x[:, None, None, :], w.shape[1], axis=1).astype(np.float32)
    else:
        feed = x.reshape(len(x), *shape).astype(np.float32)
    got = quantized_outputs(m.model([y]), feed, approach, granularity)
    want = x @ w + (0 if b is None else b)
    # The grids of the activation and of the weight, by far more than that of the bias.
    step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    largest = np.abs(w).max(0) if granularity == "per_channel" else np.abs(w).max()
    if form == "left":
        largest = np.abs(w).max()
    error = step * np.abs(w).sum(0) + largest / 127 * (np.abs(x).sum(1).max() + step * len(w))
    # A large bias makes the grid of the weight coarser, by which the sum of so many terms is off.
    # With one grid for all outputs, that of each.
    if b is not None:
        error += 1e-4 * (np.abs(b) if granularity == "per_channel" else np.abs(b).max())
    if form.startswith(("Conv", "depthwise")):
        error += np.ptp(np.append(want, 0)) / 200  # these write their outputs on 8 bits
    assert np.all(np.abs(got - want) <= error + 1e-6 * np.abs(want).max())


@st.composite
def layers(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    inputs = draw(st.sampled_from([4, 64, 512, 1024]))
    outputs = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = draw(st.sampled_from([0.0, -1.0, -0.2]))
    x = rng.uniform(low, draw(st.sampled_from([0.5, 6.0, 1e3])), (8, inputs))
    if draw(st.booleans()):
        x[0] = x.max()
        x[1] = x.min()
    sign = draw(st.sampled_from([1.0, -1.0]))
    w = rng.uniform(-1, 1, (inputs, outputs))
    if draw(st.booleans()):
        w[:, 0] = sign
    exponents = draw(st.lists(st.floats(-8, 0), min_size=outputs, max_size=outputs))
    w *= 10.0 ** np.array(exponents)
    # In units of the finest grid of products: a little below and above the end of 32 bits.
    unit = (x.max() - min(0.0, x.min())) / 255 * np.abs(w).max(0) / 127
    parts = draw(st.lists(st.sampled_from([0.0, 0.5, 0.985, 0.9999, 1.0, 30.0, 1e4]),
                          min_size=outputs, max_size=outputs))  # fmt: skip
    signs = draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=outputs, max_size=outputs))
    b = np.array(parts) * np.array(signs) * unit * 2**31
    as_given = [a.astype(np.float32).astype(np.float64) for a in (x, w, b)]
    return as_given[0], as_given[1], as_given[2]


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(150))
@given(
    form=st.sampled_from(FORMS),
    arrays=layers(),
    granularity=st.sampled_from(["per_channel", "per_tensor"]),
)
def test_a_large_bias_leaves_room_for_the_products(
    form: str, arrays: tuple[Floats, Floats, Floats], granularity: str
) -> None:
    check(form, *arrays, granularity=granularity)


@pytest.mark.parametrize("size", [0.99, 30.0, -1e3])
def test_weights_that_are_all_the_same_get_smaller_on_a_coarser_grid(size: float) -> None:
    x, w = np.ones((4, 64)), np.ones((64, 1))
    check("Gemm", x, w, np.array([size * 2**31 / 255 / 127]))


MANY = 70_000  # times 255 times 127 is more than 2**31


@pytest.mark.parametrize(
    ("form", "approach", "granularity", "sign"),
    [
        (form, approach, granularity, sign if number % 2 == 0 else -sign)
        for number, (form, approach) in enumerate(
            [
                ("MatMul", "static"),
                ("left", "static"),
                ("Gemm", "static"),
                ("Conv", "static"),
                ("depthwise", "static"),
                ("MatMul", "dynamic"),
                ("Gemm", "dynamic"),
                ("Gemm transB", "dynamic"),
            ]
        )
        for granularity, sign in (("per_channel", 1.0), ("per_tensor", -1.0))
    ],
)
def test_products_alone_stay_within_32_bits(
    form: str, approach: str, granularity: str, sign: float
) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.ones((2, MANY)), rng.uniform(0, 1, (2, MANY))])
    w = np.stack([np.full(MANY, sign), rng.uniform(-1, 1, MANY)], axis=1)
    x, w = x.astype(np.float32).astype(float), w.astype(np.float32).astype(float)
    check(form, x, w, None, approach=approach, granularity=granularity)


@settings(deadline=None, max_examples=examples(200))
@given(
    seed=st.integers(0, 2**32 - 1),
    terms=st.sampled_from([1, 3, 1000, 40_000]),
    zero_point=st.integers(0, 255),
    scheme=st.sampled_from(["int8/sym", "uint8/asym"]),
    axis=st.sampled_from([None, 0]),
    size=st.sampled_from([0.0, 0.9, 1.0, 5.0]),
    reduce_range=st.booleans(),
)
def test_extremes_of_the_sums_fit(
    seed: int,
    terms: int,
    zero_point: int,
    scheme: str,
    axis: int | None,
    size: float,
    reduce_range: bool,
) -> None:
    rng = np.random.default_rng(seed)
    array = rng.uniform(-0.1, 1.0, (3, terms)).astype(np.float32)
    dtype, kind = scheme.split("/")
    config = TensorConfig(dtype, kind, "per_channel" if axis == 0 else "per_tensor", "minmax")
    weight = quantized(array, config, axis, reduce_range=reduce_range)
    bias = size * 2**31 * 0.25 * np.broadcast_to(weight.scale, 3).astype(float)
    bias *= rng.choice([-1, 1], 3)
    steps = (ActivationSteps(zero_point, 255 - zero_point),)
    fitted = fit_accumulator(
        weight, lambda: array, reduced=(1,), steps=steps, input_scale=0.25, bias=bias
    )
    zero = fitted.zero_point.astype(np.int64).reshape(-1, 1)
    integers = fitted.values.astype(np.int64) - zero
    added = np.rint(bias / (0.25 * fitted.scale.astype(float)))
    least, most = -zero_point, 255 - zero_point
    high = np.maximum(integers * least, integers * most).sum(1) + added
    low = np.minimum(integers * least, integers * most).sum(1) + added
    assert high.max() < 2**31
    assert low.min() >= -(2**31)
    assert np.all(fitted.scale >= weight.scale)
    # No coarser than it must be, by more than what rounding may add.
    coarse = fitted.scale > 1.05 * weight.scale
    used = np.maximum(np.abs(high), np.abs(low))
    if coarse.any():
        assert used.max() >= 0.999 * 2**31
    assert np.abs(integers).max() <= (127 if reduce_range else 255)


@pytest.mark.parametrize(
    ("bias", "message"), [(np.inf, "NaN or infinite"), (np.nan, "NaN or inf"), (3e38, "too large")]
)
def test_a_bias_that_nothing_can_hold(bias: float, message: str) -> None:
    config = TensorConfig("int8", "sym", "per_tensor", "minmax")
    array = np.full((1, 4), 1e-3, np.float32)
    weight = quantized(array, config, None, reduce_range=False)
    with pytest.raises(ValueError, match=message):
        fit_accumulator(
            weight, lambda: array, reduced=(1,), input_scale=1e-38, bias=np.array([bias])
        )
