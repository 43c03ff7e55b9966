"""A candidate for a device that is elsewhere computes what NumPy says, and is not measured."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import convnet
from onnx_models import samples
import onnxruntime
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.backends.base import simulated_target_of
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs import CostTable
from optuna_quant.space.config import OpConfig
from optuna_quant.space.space import TuningSpace


X = samples(50, 12)
WEIGHT = samples(12, 5, seed=2)
BIAS = samples(5, seed=3)


def layer() -> onnx.ModelProto:
    m = Maker()
    x = m.input("x", ["N", 12])
    return m.model([m.node("Gemm", [x, m.const(WEIGHT), m.const(BIAS)])])


def options_of(space: TuningSpace) -> dict[str, tuple[OpConfig, ...]]:
    return {op: t.quantized for t in space.tunables for op in t.ops}


def quantized(
    values: NDArray[np.floating], scale: NDArray[np.floating], zero_point: int, dtype: str
) -> NDArray[np.float64]:
    """What a pair makes of values."""
    limits = np.iinfo(dtype)
    integers = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
    return (integers - zero_point) * scale


def asymmetric(values: NDArray[np.floating], dtype: str) -> NDArray[np.float64]:
    steps = float(np.iinfo(dtype).max)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = np.float64(np.float32((high - low) / steps))
    return quantized(values, scale, round(-low / scale), dtype)


def run(target: str, dtype: str) -> NDArray[np.float32]:
    backend = OnnxRuntimeBackend(layer(), calibration_data={"x": X}, target=target)
    space = backend.tuning_space()
    option = next(
        o for o in options_of(space)["Gemm0"] if o.activation and o.activation.dtype == dtype
    )
    model = backend.quantize(space.fp32().with_ops({"Gemm0": option}))
    (y,) = model.run({"x": X})
    return y


def test_tensorrt_computes_what_numpy_does() -> None:
    scale = np.abs(WEIGHT).max(0) / 127
    expected = quantized(X, np.abs(X).max() / 127, 0, "int8") @ quantized(WEIGHT, scale, 0, "int8")
    np.testing.assert_allclose(run("tensorrt", "int8"), expected + BIAS, atol=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [("uint8", 2e-2), ("uint16", 1e-4)])
def test_qnn_computes_what_numpy_does(dtype: str, error: float) -> None:
    weight = quantized(WEIGHT, np.abs(WEIGHT).max() / 127, 0, "int8")
    products = asymmetric(X, dtype) @ weight + BIAS
    # The range of the output is that of floats, as calibration sees it.
    floats = X @ WEIGHT + BIAS
    low, high = floats.min(), floats.max()
    scale = (high - low) / np.iinfo(dtype).max
    expected = quantized(products, scale, round(-low / scale), dtype)
    y = run("qnn", dtype)
    # A sum at the edge between two steps may fall on either.
    assert np.abs(y - expected).max() <= 1.001 * scale
    assert np.mean(np.abs(y - expected) > scale / 2) < 0.02
    assert np.abs(y - products).max() <= max(scale, error) + np.abs(products - floats).max()


def test_16_bits_are_closer_than_8() -> None:
    weight = quantized(WEIGHT, np.abs(WEIGHT).max() / 127, 0, "int8")
    exact = X @ weight + BIAS
    errors = {dtype: np.abs(run("qnn", dtype) - exact).max() for dtype in ("uint8", "uint16")}
    assert errors["uint16"] < errors["uint8"] / 50


def test_sums_that_a_cpu_kernel_would_saturate_are_exact() -> None:
    """The simulation runs no integer kernels, whatever the processor."""
    m = Maker()
    weight = np.full((64, 16), 1.0, np.float32)
    model = m.model([m.node("MatMul", [m.input("x", ["N", 64]), m.const(weight)])])
    x = np.ones((4, 64), np.float32)
    backend = OnnxRuntimeBackend(model, calibration_data={"x": x}, target="openvino")
    (y,) = backend.quantize(backend.tuning_space().default()).run({"x": x})
    np.testing.assert_allclose(y, 64.0, rtol=1e-5)
    assert backend.signature()["arithmetic"] == "exact"


def test_pairs_are_not_made_integer_kernels(tmp_path: object) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimized.onnx"
    data = {"x": samples(20, 2, 8, 8)}
    backend = OnnxRuntimeBackend(
        convnet(), calibration_data=data, target="qnn", session_options=options
    )
    _ = backend.quantize(backend.tuning_space().default()).session
    kernels = {n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node}
    assert not any(name.startswith(("QLinear", "QGemm", "MatMulInteger")) for name in kernels)
    assert {"QuantizeLinear", "DequantizeLinear"} <= kernels


def test_user_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    data = {"x": samples(20, 2, 8, 8)}
    backend = OnnxRuntimeBackend(convnet(), calibration_data=data, target="tensorrt")
    backend.quantize(backend.tuning_space().default())
    OnnxRuntimeBackend(convnet(), calibration_data=data)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 1
    assert "TensorrtExecutionProvider is not used here" in told[0]


def test_nothing_is_measured() -> None:
    data = {"x": samples(20, 2, 8, 8)}
    backend = OnnxRuntimeBackend(convnet(), calibration_data=data, target="qnn")
    assert simulated_target_of(backend) == backend.simulated_target == "qnn"
    assert simulated_target_of(object()) is None
    space = backend.tuning_space()
    costs = backend.costs(space)
    assert set(costs.tables) == {"size", "multiply_adds", "bit_operations"}
    assert costs.conditions["target"] == "qnn, simulated"
    bits = costs.table("bit_operations")
    gemm = {
        o.activation.dtype: bits.option_cost("Gemm0", o.label)
        for o in options_of(space)["Gemm0"]
        if o.activation
    }
    multiply_adds = 24 * 5
    assert gemm == {"uint8": multiply_adds * 64, "uint16": multiply_adds * 128}
    assert bits.option_cost("Gemm0", "fp32") == multiply_adds * 1024
    runs = backend.executed(space.default())
    assert {each.note for each in runs.values()} == {
        "not known: simulated for 'qnn', which is not here"
    }
    assert not any(each.kernel or each.integer for each in runs.values())


def test_signature_tells_targets_apart() -> None:
    data = {"x": samples(20, 2, 8, 8)}
    options = {
        target: OnnxRuntimeBackend(convnet(), calibration_data=data, target=target).signature()
        for target in ("cpu", "qnn", "tensorrt")
    }
    assert len({each["options"] for each in options.values()}) == 3
    assert "target" not in options["cpu"]["options"]


def labelled() -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    x = samples(200, 2, 8, 8, seed=5)
    backend = OnnxRuntimeBackend(convnet(), calibration_data={"x": x[:20]})
    (logits,) = backend.quantize(backend.tuning_space().fp32()).run({"x": x})
    return {"x": x}, logits.argmax(1)


def test_search_is_for_bit_operations() -> None:
    data = labelled()
    result = tune(
        convnet(),
        calibration_data=samples(20, 2, 8, 8),
        data=data,
        metric="accuracy",
        target="qnn",
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.05),
        strategy="conservative",
        max_trials=5,
    )
    assert result.met
    assert result.objective == "bit_operations"
    assert result.gain is None
    summary = result.summary()
    assert "simulated for the target 'qnn', on which nothing was measured (FP32: " in summary
    assert "faster" not in summary


def test_latency_must_be_given() -> None:
    arguments = {
        "calibration_data": samples(20, 2, 8, 8),
        "data": labelled(),
        "metric": "accuracy",
        "target": "qnn",
        "objective": "latency",
        "strategy": "conservative",
        "max_trials": 2,
    }
    with pytest.raises(ValueError, match=r"needs latency .*'qnn' is simulated.*Give costs="):
        tune(convnet(), **arguments)
    space = OnnxRuntimeBackend(
        convnet(), calibration_data=samples(20, 2, 8, 8), target="qnn"
    ).tuning_space()
    table = CostTable(
        "latency",
        "s",
        {
            op: {o.label: 1.0 if o.is_quantized else 3.0 for o in t.options}
            for t in space.tunables
            for op in t.ops
        },
    )
    result = tune(convnet(), costs=table, **arguments)
    assert result.objective == "latency"
    assert result.gain is None


def test_bits_count_without_labels_of_options() -> None:
    from optuna_quant.costs.operations import bits

    assert bits(OpConfig("fp16")) == (16, 16)
    label = "static a=uint16/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax"
    assert bits(OpConfig.from_label(label)) == (16, 8)
