"""Models that ONNX Runtime loads only with less of its optimization."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import samples
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model import quantized_model


Level = onnxruntime.GraphOptimizationLevel


def quantized_by_channel() -> onnx.ModelProto:
    """Of opset 11, which has no scales by channel; the runtime's own operator has.

    Its optimizer makes a Gemm of product and bias, and a node for the bias that is not valid.
    """
    m = Maker(opset=11)
    h = m.input("x", ["N", 4])
    scale, zero = m.const(np.float32(0.02)), m.const(np.uint8(128))
    for last in (False, True):
        h = m.node("DequantizeLinear", [m.node("QuantizeLinear", [h, scale, zero]), scale, zero])
        integers = m.const(m.rng.integers(-99, 99, (4, 4)).astype(np.int8))
        scales, zeros = m.const(np.full(4, 0.01, np.float32)), m.const(np.zeros(4, np.int8))
        weight = [integers, scales, zeros]
        weight = m.node("DequantizeLinear", weight, domain="com.microsoft", axis=1)
        h = m.node("Add", [m.node("MatMul", [h, weight]), m.weight(4)])
        h = h if last else m.node("Relu", [h])
    return m.model([h])


def test_a_model_that_the_optimizer_of_the_runtime_breaks() -> None:
    model = quantized_by_channel()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = Level.ORT_DISABLE_ALL
    # The model is valid.
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with pytest.raises(ValueError, match="ONNX Runtime does not load the model") as raised:
        OnnxRuntimeBackend(model, calibration_data=samples(8, 4))
    message = str(raised.value)
    assert "It loads with graph optimization off" in message
    assert "4 DequantizeLinear nodes and 2 QuantizeLinear nodes: give the FP32 model" in message
    # With the options that are named it does load.
    OnnxRuntimeBackend(model, calibration_data=samples(8, 4), session_options=options)


def refusing_from(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions fail from a level of optimization on, as the fusion of a layer does."""
    session = onnxruntime.InferenceSession

    def make(content: bytes, options: Any, **rest: Any) -> Any:
        if options.graph_optimization_level.value >= level.value:
            raise RuntimeError("FAIL : This is an invalid model. Error: bad\nnode.")
        return session(content, options, **rest)

    monkeypatch.setattr(quantized_model.onnxruntime, "InferenceSession", make)


def dense() -> onnx.ModelProto:
    m = Maker()
    return m.model([m.node("MatMul", [m.input("x", ["N", 4]), m.weight(4, 3)])])


@pytest.mark.parametrize(
    ("refused", "loads"),
    [
        (Level.ORT_ENABLE_BASIC, "It loads with graph optimization off"),
        (Level.ORT_ENABLE_EXTENDED, "It loads with ORT_ENABLE_BASIC"),
        (Level.ORT_ENABLE_ALL, "It loads with ORT_ENABLE_LAYOUT"),
    ],
)
def test_the_highest_level_that_loads_is_named(
    refused: Level, loads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing_from(refused, monkeypatch)
    with pytest.raises(ValueError, match=loads) as raised:
        OnnxRuntimeBackend(dense(), calibration_data=samples(8, 4))
    message = str(raised.value)
    assert "FAIL : This is an invalid model. Error: bad node. It loads" in message
    assert "quant_pre_process(skip_optimization=True)" in message
    assert "graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_" in message


def test_an_optimized_model_is_told_to_be_given_as_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m = Maker()
    h = m.node("Gelu", [m.input("x", ["N", 4])], domain="com.microsoft")
    model = m.model([m.node("MatMul", [h, m.weight(4, 3)])])
    refusing_from(Level.ORT_ENABLE_EXTENDED, monkeypatch)
    with pytest.raises(ValueError, match="it was already optimized: give the model as it was exp"):
        OnnxRuntimeBackend(model, calibration_data=samples(8, 4))


def test_options_of_the_user_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = Level.ORT_ENABLE_EXTENDED
    refusing_from(Level.ORT_ENABLE_BASIC, monkeypatch)
    with pytest.raises(ValueError, match="It loads with graph optimization off"):
        OnnxRuntimeBackend(dense(), calibration_data=samples(8, 4), session_options=options)
    assert options.graph_optimization_level == Level.ORT_ENABLE_EXTENDED


def test_a_model_that_never_loads_is_told_of_by_its_file(tmp_path: Any) -> None:
    m = Maker()
    model = m.model([m.node("NoSuchOperator", [m.input("x", ["N", 4])])])
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ValueError, match=r"does not load model '.*odd\.onnx': .*") as raised:
        OnnxRuntimeBackend(tmp_path / "odd.onnx", calibration_data=samples(8, 4))
    assert "It loads" not in str(raised.value)
