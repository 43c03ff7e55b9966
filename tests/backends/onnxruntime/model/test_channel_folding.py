"""Batch normalizations as exporters write them become part of the convolution before them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize


CHANNELS = 4
X = samples(3, 2, 5, 5)


def normal(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def op_types(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def assert_same(model: onnx.ModelProto, x: object = X) -> None:
    expected = run(model, {"x": x}, optimized=False)
    actual = run(normal(model).to_model(), {"x": x}, optimized=False)
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def channel_last(m: Maker, *, bias: bool = True, group: int = 1) -> str:
    """A convolution as it is exported of a layer whose channels are last."""
    x = m.input("x", ["N", 2, 5, 5])
    conv = m.conv(x, 2, CHANNELS, bias=bias, group=group)
    return m.node("Transpose", [conv], perm=[0, 2, 3, 1])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("shape", [(CHANNELS,), (1, 1, 1, CHANNELS), (1,), ()])
def test_a_normalization_behind_a_transpose(bias: bool, group: int, shape: Sequence[int]) -> None:
    m = Maker()
    h = channel_last(m, bias=bias, group=group)
    h = m.node("Sub", [h, m.weight(*shape)])
    h = m.node("Mul", [m.weight(*shape), h])
    h = m.node("Add", [h, m.weight(*shape)])
    model = m.model([m.node("Relu", [h])])
    assert op_types(normal(model)) == ["Conv", "Transpose", "Relu"]
    assert_same(model)


STEPS: dict[str, Callable[[Maker, str, str], str]] = {
    "added": lambda m, h, c: m.node("Add", [c, h]),
    "multiplied": lambda m, h, c: m.node("Mul", [h, c]),
    "subtracted": lambda m, h, c: m.node("Sub", [h, c]),
    "subtracted from": lambda m, h, c: m.node("Sub", [c, h]),
    "divided": lambda m, h, c: m.node("Div", [h, c]),
}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("last", [False, True])
def test_each_step(kind: str, last: bool) -> None:
    m = Maker()
    if last:
        h, shape = channel_last(m), [CHANNELS]
    else:
        h, shape = m.conv(m.input("x", ["N", 2, 5, 5]), 2, CHANNELS), [CHANNELS, 1, 1]
    model = m.model([m.node("Relu", [STEPS[kind](m, h, m.weight(*shape))])])
    assert op_types(normal(model)) == ["Conv", *(["Transpose"] if last else []), "Relu"]
    assert_same(model)


def test_steps_between_transposes_and_a_batch_normalization() -> None:
    m = Maker()
    h = m.node("Mul", [channel_last(m), m.weight(CHANNELS)])
    h = m.node("Transpose", [h], perm=[0, 3, 1, 2])
    positive = np.full(CHANNELS, 0.7, np.float32)
    h = m.node("BatchNormalization", [h, *(m.weight(CHANNELS) for _ in "sbm"), m.const(positive)])
    h = m.node("Add", [h, m.weight(CHANNELS, 1, 1)])
    model = m.model([h])
    assert op_types(normal(model)) == ["Conv", "Transpose", "Transpose"]
    assert_same(model)


def test_casts_that_change_nothing_are_no_obstacle() -> None:
    """Keras with PyTorch exports one before each step."""
    m = Maker()
    h = m.node("Cast", [channel_last(m)], to=onnx.TensorProto.FLOAT)
    h = m.node("Mul", [h, m.weight(CHANNELS)])
    h = m.node("Cast", [m.node("Cast", [h], to=onnx.TensorProto.FLOAT)], to=onnx.TensorProto.FLOAT)
    model = m.model([m.node("Add", [h, m.weight(CHANNELS)])])
    assert op_types(normal(model)) == ["Conv", "Transpose"]
    assert_same(model)


def test_casts_that_change_the_type_stay() -> None:
    m = Maker()
    h = m.node("Cast", [channel_last(m)], to=onnx.TensorProto.INT32)
    h = m.node("Cast", [h], to=onnx.TensorProto.FLOAT)
    model = m.model([m.node("Mul", [h, m.weight(CHANNELS)])])
    assert op_types(normal(model)) == ["Conv", "Transpose", "Cast", "Cast", "Mul"]
    assert_same(model)


@pytest.mark.parametrize("opset", [11, 17])
def test_the_convolution_of_a_sequence(opset: int) -> None:
    """Keras makes a convolution with one row of it."""
    m = Maker(opset=opset)
    x = m.input("x", ["N", 2, 1, 9])
    h = m.node("Conv", [x, m.weight(CHANNELS, 2, 1, 3)])
    if opset == 11:
        h = m.node("Squeeze", [h], axes=[2])
    else:
        h = m.node("Squeeze", [h, m.const(np.array([-2]))])
    h = m.node("Transpose", [h], perm=[0, 2, 1])
    h = m.node("Mul", [h, m.weight(CHANNELS)])
    h = m.node("Add", [h, m.weight(CHANNELS)])
    model = m.model([h])
    assert op_types(normal(model)) == ["Conv", "Squeeze", "Transpose"]
    assert_same(model, samples(3, 2, 1, 9))


def test_the_weight_stays_where_only_the_bias_changes() -> None:
    m = Maker()
    model = m.model([m.node("Add", [channel_last(m, bias=False), m.weight(CHANNELS)])])
    graph = normal(model)
    assert graph.nodes[0].input[1] == model.graph.node[0].input[1]
    assert_same(model)


def left(reason: str) -> onnx.ModelProto:
    """A model with a multiplication that the convolution cannot do."""
    m = Maker()
    h = channel_last(m)
    shape: tuple[int, ...] = (CHANNELS,)
    if reason == "another axis":
        shape = (3, 1)
    elif reason == "more axes":
        shape = (2, 1, 1, 1, CHANNELS)
    elif reason == "a value for each position":
        shape = (3, 3, CHANNELS)
    factor = m.weight(*shape)
    if reason == "computed":
        factor = m.node("ReduceMean", [h], axes=[1, 2])
    if reason == "too large":
        m.initializers[0].CopyFrom(
            onnx.numpy_helper.from_array(
                np.full((CHANNELS, 2, 3, 3), 1e3, np.float32), m.initializers[0].name
            )
        )
        factor = m.const(np.full(CHANNELS, 3e38, np.float32))
    outputs = [m.node("Mul", [h, h if reason == "squared" else factor])]
    if reason == "two readers":
        outputs.append(m.node("Sigmoid", [h]))
    if reason == "an output":
        outputs.append(h)
    return m.model(outputs)


@pytest.mark.parametrize(
    "reason",
    [
        "another axis",
        "more axes",
        "a value for each position",
        "computed",
        "too large",
        "squared",
        "two readers",
        "an output",
    ],
)
def test_what_a_convolution_cannot_do_is_left(reason: str) -> None:
    model = left(reason)
    assert "Mul" in op_types(normal(model))
    if reason != "too large":
        assert_same(model)


def test_a_constant_divided_by_the_output_is_left() -> None:
    m = Maker()
    model = m.model([m.node("Div", [m.weight(CHANNELS), channel_last(m)])])
    assert op_types(normal(model)) == ["Conv", "Transpose", "Div"]


def test_the_integer_convolution_has_the_normalization_in_it() -> None:
    m = Maker()
    h = channel_last(m)
    h = m.node("Mul", [h, m.const(np.array([0.1, 1, 3, 10], np.float32))])
    h = m.node("Add", [h, m.weight(CHANNELS)])
    h = m.node("Relu", [h])
    h = m.node("Transpose", [h], perm=[0, 3, 1, 2])
    model = m.model([m.conv(h, CHANNELS, 2)])
    backend = OnnxRuntimeBackend(model, calibration_data={"x": X}, session_options=exact_options())
    space = backend.tuning_space()
    assert not {"Mul0", "Add0"} & {name for tunable in space.tunables for name in tunable.ops}
    expected = run(model, {"x": X})[0]
    actual = backend.quantize(space.default()).session.run(None, {"x": X})[0]
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()
