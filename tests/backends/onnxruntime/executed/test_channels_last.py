"""Convolutions between the transpositions that exporters of channels-last models write."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx_models import Maker
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
CONVS = ("stem", "depth", "point", "body")


def keras_like() -> onnx.ModelProto:
    """Layers as Keras exports them: each transposes its input and its output."""
    m = Maker()
    h = m.input("x", ["N", 8, 8, 1])

    def conv(h: str, name: str, channels: int, inputs: int, size: int, group: int = 1) -> str:
        weight = m.weight(channels, inputs // group, size, size)
        pads = [size // 2] * 4
        h = m.node("Transpose", [h], perm=TO_FIRST)
        h = m.node("Conv", [h, weight, m.weight(channels)], name=name, pads=pads, group=group)
        return m.node("Transpose", [h], perm=TO_LAST)

    h = m.node("Relu", [conv(h, "stem", 32, 1, 3)])
    h = m.node("Relu", [conv(h, "depth", 32, 32, 3, group=32)])
    h = m.node("Relu", [conv(h, "point", 64, 32, 1)])
    h = m.node("Transpose", [h], perm=TO_FIRST)
    h = m.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2])
    h = m.node("Transpose", [h], perm=TO_LAST)
    return m.model([m.node("Relu", [conv(h, "body", 64, 64, 3)])])


@pytest.fixture(scope="module")
def backend() -> OnnxRuntimeBackend:
    x = np.random.default_rng(0).random((16, 8, 8, 1)).astype(np.float32)
    return OnnxRuntimeBackend(keras_like(), calibration_data={"x": x}, approach="static")


@pytest.mark.parametrize("count", range(len(CONVS) + 1))
def test_what_runs_is_known_whichever_of_them_are_in_floats(
    backend: OnnxRuntimeBackend, count: int
) -> None:
    default = backend.tuning_space().default()
    for floats in itertools.combinations(CONVS, count):
        found = backend.executed(default.with_fallback(*floats))
        assert {op: runs.integer for op, runs in found.items()} == {
            op: op not in floats for op in CONVS
        }
        assert not [op for op, runs in found.items() if "not known" in runs.note]
