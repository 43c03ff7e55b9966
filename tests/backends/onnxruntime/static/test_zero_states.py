"""Tensors that are zero whatever the inputs are: the first state of a recurrent layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


UNITS = 16


def recurrent(value: float | None) -> onnx.ModelProto:
    """Two steps of a recurrent layer whose first state has one value; None for the default."""
    m = Maker()
    x = m.input("x", ["N", UNITS])
    units = m.const(np.array([UNITS]))
    rows = m.node("Slice", [m.node("Shape", [x]), m.const(np.array([0])), m.const(np.array([1]))])
    options = {}
    if value is not None:
        options["value"] = onnx.numpy_helper.from_array(np.array([value], np.float32))
    shape = m.node("Concat", [rows, units], axis=0)
    h = m.node("Identity", [m.node("ConstantOfShape", [shape], **options)])
    weight, bias = m.weight(UNITS, UNITS), m.weight(UNITS)
    for _ in range(2):
        h = m.node("Tanh", [m.node("Add", [m.node("Gemm", [h, weight, bias]), x])])
    return m.model([h])


def inputs() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(64, UNITS)).astype(np.float32)


@pytest.mark.parametrize("value", [None, 0.0])
@pytest.mark.parametrize("op_types", ["default", "all"])
def test_the_step_from_zero_is_quantized(
    value: float | None, op_types: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, x = recurrent(value), inputs()
    backend = OnnxRuntimeBackend(model, calibration_data={"x": x}, approach="static")
    space = backend.tuning_space(op_types=op_types)
    candidate = backend.quantize(space.default())
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    gemms = {op: runs for op, runs in backend.executed(space.default()).items() if "Gemm" in op}
    assert len(gemms) == 2
    assert all(runs.integer for runs in gemms.values())
    (expected,) = backend.quantize(space.fp32()).run({"x": x})
    (found,) = candidate.run({"x": x})
    # The bias is as exact as in the other steps.
    assert np.abs(found - expected).max() < (0.05 if op_types == "default" else 0.1)


def test_one_weight_of_all_steps_is_in_integers_alone() -> None:
    backend = OnnxRuntimeBackend(
        recurrent(None), calibration_data={"x": inputs()}, approach="static"
    )
    kinds = {
        tensor.data_type
        for tensor in backend.quantize(backend.tuning_space().default()).proto.graph.initializer
        if list(tensor.dims) == [UNITS, UNITS]
    }
    assert kinds == {onnx.TensorProto.INT8}


def test_what_data_happen_to_make_zero_stays_in_floats(caplog: pytest.LogCaptureFixture) -> None:
    m = Maker()
    x, mask = m.input("x", ["N", UNITS]), m.input("mask", ["N", UNITS])
    h = m.node("MatMul", [m.node("Mul", [x, mask]), m.weight(UNITS, UNITS)], name="masked")
    y = m.node("MatMul", [x, m.weight(UNITS, UNITS)])
    data = {"x": inputs(), "mask": np.zeros((64, UNITS), np.float32)}
    backend = OnnxRuntimeBackend(m.model([h, y]), calibration_data=data, approach="static")
    backend.quantize(backend.tuning_space().default())
    assert "is zero in all calibration samples, so it has no quantization range; give" in (
        caplog.text
    )
