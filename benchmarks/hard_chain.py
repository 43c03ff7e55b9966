"""A generated model of 110 MatMul, three of which do not stand 8-bit activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper


_OPS, _WIDTH, _CLASSES = 110, 64, 10
_HARD = (20, 57, 88)
_OUTLIER = 60.0
_SAMPLES, _CALIBRATION = 2000, 256


def hard_chain() -> dict[str, Any]:
    """What ``tune()`` takes: the model's bytes, data labelled by itself, calibration data.

    Each layer is a residual one, ``x + Relu(x W) V`` without a normalization; before three of the
    MatMul a channel is scaled up and its weights down, so that the function is the same and the
    range of the activations is not.
    """
    rng = np.random.default_rng(0)
    nodes, tensors = [], []

    def constant(name: str, value: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    current = "x"
    for i in range(_OPS // 2 - 1):
        up = rng.normal(0, 1 / np.sqrt(_WIDTH), (_WIDTH, _WIDTH))
        down = rng.normal(0, 0.25 / np.sqrt(_WIDTH), (_WIDTH, _WIDTH))
        read = current
        if i in _HARD or 2 * i in _HARD or 2 * i + 1 in _HARD:
            scale = np.ones(_WIDTH)
            scale[rng.integers(_WIDTH)] = _OUTLIER
            up /= scale[:, None]
            read = f"scaled{i}"
            nodes.append(
                helper.make_node("Mul", [current, constant(f"s{i}", scale)], [read], f"mul{i}")
            )
        nodes += [
            helper.make_node("MatMul", [read, constant(f"u{i}", up)], [f"h{i}"], f"up{i}"),
            helper.make_node("Relu", [f"h{i}"], [f"r{i}"], f"relu{i}"),
            helper.make_node("MatMul", [f"r{i}", constant(f"d{i}", down)], [f"b{i}"], f"down{i}"),
            helper.make_node("Add", [current, f"b{i}"], [f"x{i}"], f"add{i}"),
        ]
        current = f"x{i}"
    first = rng.normal(0, 1 / np.sqrt(_WIDTH), (_WIDTH, _WIDTH))
    last = rng.normal(0, 1 / np.sqrt(_WIDTH), (_WIDTH, _CLASSES))
    nodes += [
        helper.make_node("MatMul", [current, constant("first", first)], ["h"], "head1"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", constant("last", last)], ["logits"], "head2"),
    ]
    graph = helper.make_graph(
        nodes,
        "hard_chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", _WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", _CLASSES])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    serialized = model.SerializeToString()
    x = rng.normal(0, 1, (_SAMPLES + _CALIBRATION, _WIDTH)).astype(np.float32)
    return {
        "model": serialized,
        "calibration_data": {"x": x[_SAMPLES:]},
        "data": {"x": x[:_SAMPLES], "labels": _labels(serialized, x[:_SAMPLES])},
    }


def other_samples(count: int) -> dict[str, np.ndarray]:
    """Samples that no search has seen, labelled in the same way."""
    x = np.random.default_rng(2).normal(0, 1, (count, _WIDTH)).astype(np.float32)
    return {"x": x, "labels": _labels(hard_chain()["model"], x)}


def _labels(model: bytes, x: np.ndarray) -> np.ndarray:
    """The model's own answers, a twentieth of them replaced: no model is always right."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": x})
    labels = logits.argmax(axis=1)
    rng = np.random.default_rng(1)
    wrong = rng.random(len(labels)) < 0.05
    labels[wrong] = rng.integers(0, _CLASSES, wrong.sum())
    return labels
