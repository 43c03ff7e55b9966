"""An op that calibration gives no range: the reason is that, and not what it would save."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from onnx import helper
import onnxruntime

import optuna_quant


def two_branches() -> onnx.ModelProto:
    """Two layers, and beside them one on the logarithm of zero."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array((rng.normal(size=(16, 16)) / 4).astype(np.float32), name)
        for name in ("w0", "w1", "w2")
    ]
    zero = onnx.numpy_helper.from_array(np.zeros(16, np.float32), "zero")
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w1"], ["y"], name="second"),
        helper.make_node("Mul", ["r", "zero"], ["z"], name="mul"),
        helper.make_node("Log", ["z"], ["l"], name="log"),
        helper.make_node("MatMul", ["l", "w2"], ["b"], name="infinite"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 16]) for n in "xyb"]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [*weights, zero])
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_an_op_without_a_range_is_not_said_to_be_no_smaller() -> None:
    model = two_branches()
    x = np.random.default_rng(1).normal(size=(400, 16)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})
    labels = (y.argmax(1) + (np.arange(400) % 30 == 0)) % 16
    result = optuna_quant.tune(
        model,
        calibration_data={"x": x[:100]},
        data={"x": x, "labels": labels},
        objective="size",
        strategy="surrogate",
        tolerable_loss=0.0001,
    )
    assert result.config is not None
    assert not result.config["infinite"].is_quantized
    reason = result.explain("infinite")
    assert "no smaller" not in reason
    assert "the runtime computes it in floats as well: Tensor 'l' holds" in reason
    assert "it has no quantization range" in reason
