from __future__ import annotations

from collections.abc import Callable
import logging

import numpy as np
import onnx
from onnx import TensorProto
from onnx import helper
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import opset_forms as forms
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.upgrade import CannotUpgradeError
from optuna_quant.backends.onnxruntime.model.upgrade import upgraded


Body = Callable[[Maker, str], str]
SHAPE = (4, 6, 8)


def softmax(op_type: str, **attributes: int) -> Body:
    return lambda m, x: m.node(op_type, [x], **attributes)


def unknown_rank(m: Maker, x: str) -> str:
    """A softmax behind an operator of another domain, whose shape cannot be inferred."""
    return m.node("Softmax", [m.node("Gelu", [x], domain="com.microsoft")])


def in_a_branch(m: Maker, x: str) -> str:
    """What an If computes: forms of old opsets in a subgraph, with a name from outside."""
    inner = Maker(m.opset)
    forms.clip(inner, forms.squeeze(inner, forms.unsqueeze(inner, x, [0]), [0]), -0.5, 0.5)
    inner.nodes[-1].output[0] = "branch_out"
    value = helper.make_tensor_value_info("branch_out", TensorProto.FLOAT, None)
    graph = helper.make_graph(inner.nodes, "branch", [], [value], inner.initializers)
    condition = m.const(np.array(True))
    return m.node("If", [condition], then_branch=graph, else_branch=graph)


BODIES: dict[str, Body] = {
    "Squeeze": lambda m, x: forms.squeeze(m, forms.unsqueeze(m, x, [0, 2]), [2]),
    "Squeeze all": lambda m, x: m.node("Squeeze", [forms.unsqueeze(m, x, [0, 2])]),
    "ReduceSum": lambda m, x: forms.reduce_sum(m, x, [0, 2], 0),
    "ReduceSum all": lambda m, x: m.node("ReduceSum", [x]),
    "Split": lambda m, x: forms.split(m, x, [1, 3, 2], 1)[1],
    "Split evenly": lambda m, x: m.node("Split", [x], outputs=["p", "q"], axis=1),
    "Clip": lambda m, x: forms.clip(m, x, -0.5, 0.25),
    "Clip low": lambda m, x: forms.clip(m, x, 0.125, None),
    "Clip high": lambda m, x: forms.clip(m, x, None, 0.5),
    "Pad": lambda m, x: forms.pad(m, x, [0, 1, 0, 0, 0, 2]),
    "Pad value": lambda m, x: forms.pad(m, x, [0, 1, 0, 0, -1, 2], 0.75),
    "Pad edge": lambda m, x: forms.pad(m, x, [0, 1, 0, 0, 0, 2], mode="edge"),
    "Dropout": forms.dropout,
    "Resize larger": lambda m, x: forms.resize(m, x, [1, 1.5, 2.3]),
    "Resize linear": lambda m, x: forms.resize(m, x, [1, 1.5, 0.6], "linear"),
    "Softmax": softmax("Softmax"),
    "Softmax 0": softmax("Softmax", axis=0),
    "Softmax 2": softmax("Softmax", axis=2),
    "Softmax unknown": unknown_rank,
    "LogSoftmax": softmax("LogSoftmax"),
    "LogSoftmax -1": softmax("LogSoftmax", axis=-1),
    "Hardmax": softmax("Hardmax", axis=1),
    "If": in_a_branch,
}


def made(body: Body, opset: int) -> onnx.ModelProto:
    m = Maker(opset)
    return m.model([body(m, m.input("x", ["N", *SHAPE[1:]]))])


@pytest.mark.parametrize("opset", [10, 11, 12])
@pytest.mark.parametrize("name", BODIES)
def test_upgraded_model_computes_the_same(name: str, opset: int) -> None:
    model = made(BODIES[name], opset)
    before = model.SerializeToString()
    new = upgraded(model, opset)
    assert model.SerializeToString() == before
    assert new.opset_import[0].version == 13
    kept = {node.name: list(node.output) for node in model.graph.node}
    found = {node.name: list(node.output) for node in new.graph.node}
    assert kept.keys() <= found.keys()
    data = {"x": samples(*SHAPE)}
    (want,), (got,) = (run(one, data, optimized=False) for one in (model, new))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("scales", [(1, 1, 0.5), (1, 0.4, 0.7)])
def test_resize_of_opset_10_rounds_up_where_it_reduces(scales: tuple[float, ...]) -> None:
    model = made(lambda m, x: forms.resize(m, x, scales), 10)
    data = {"x": samples(*SHAPE)}
    (want,), (got,) = (run(one, data) for one in (model, upgraded(model, 10)))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("low", [np.float16, np.float64])
def test_limits_have_the_type_of_what_is_clipped(low: type) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(low))

    def body(m: Maker, x: str) -> str:
        clipped = forms.clip(m, m.node("Cast", [x], to=kind), -0.5, 0.5)
        return m.node("Cast", [clipped], to=TensorProto.FLOAT)

    model = made(body, 10)
    data = {"x": samples(*SHAPE)}
    (got,) = run(upgraded(model, 10), data)
    np.testing.assert_array_equal(got, np.clip(data["x"].astype(low), -0.5, 0.5).astype("f4"))


def computed_scales(m: Maker, x: str) -> str:
    scales = m.node("Abs", [m.const(np.array([1, 2, 2], np.float32))])
    h = m.node("Resize", [m.node("MatMul", [x, m.weight(8, 8)]), scales], mode="nearest")
    return m.node("MatMul", [h, m.weight(16, 4)])


def test_model_that_has_no_new_form_stays_as_it_is_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = made(computed_scales, 10)
    with pytest.raises(CannotUpgradeError, match=r"scales of node 'Resize0' \(Resize\)"):
        upgraded(model, 10)
    with caplog.at_level(logging.WARNING, "optuna"):
        graph = normalize(load_model(model))
    assert graph.opset == 10
    (said,) = [r.getMessage() for r in caplog.records if "stays in opset 10" in r.getMessage()]
    assert "'Resize0'" in said
    assert "Export it again with opset 13" in said
    data = samples(*SHAPE)
    backend = OnnxRuntimeBackend(model, calibration_data=data, session_options=exact_options())
    (got,) = backend.quantize(backend.tuning_space().default()).run({"x": data})
    (want,) = run(model, {"x": data})
    assert np.abs(got - want).max() <= 0.05 * np.abs(want).max()


# Every opset.


def dense(m: Maker) -> tuple[str, tuple[int, ...]]:
    x = m.input("x", ["N", 16])
    h = m.node("Add", [m.node("MatMul", [x, m.weight(16, 32)]), m.weight(32)])
    h = m.node("MatMul", [m.node("Relu", [h]), m.weight(32, 8)])
    return m.node("Add", [h, m.weight(8)]), (32, 16)


def linear(m: Maker) -> tuple[str, tuple[int, ...]]:
    x = m.input("x", ["N", 16])
    h = forms.clip(m, m.node("Gemm", [x, m.weight(16, 32), m.weight(32)]), 0.0, 6.0)
    return m.node("Gemm", [h, m.weight(8, 32), m.weight(8)], transB=1, alpha=0.5), (32, 16)


def image(m: Maker) -> tuple[str, tuple[int, ...]]:
    x = m.input("x", ["N", 3, 8, 8])
    h = forms.clip(m, m.conv(forms.pad(m, x, [0, 0, 1, 1, 0, 0, 1, 1]), 3, 6), 0.0, None)
    left, right = forms.split(m, h, [2, 4], 1)
    h = m.node("Concat", [right, left], axis=1)
    norm = [m.const(np.abs(samples(6)) + 0.5), m.weight(6), m.weight(6), m.const(np.ones(6, "f4"))]
    h = m.node("BatchNormalization", [m.conv(h, 6, 6, group=6), *norm])
    h = forms.resize(m, m.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2]), [1, 1, 2, 2])
    h = m.node("Add", [m.conv(h, 6, 4, kernel=(1, 1)), m.weight(1, 4, 1, 1)])
    h = forms.dropout(m, m.node("Flatten", [m.node("GlobalAveragePool", [h])]))
    return m.node("Softmax", [m.node("Gemm", [h, m.weight(4, 5), m.weight(5)])], axis=1), (
        16,
        3,
        8,
        8,
    )


def sequence(m: Maker) -> tuple[str, tuple[int, ...]]:
    x = m.input("x", ["N", 6, 8])
    h = m.node("Add", [m.node("MatMul", [x, m.weight(8, 8)]), m.weight(8)])
    turned = m.node("Transpose", [h], perm=[0, 2, 1])
    scores = m.node("Softmax", [m.node("MatMul", [h, turned])], axis=2)
    h = m.node("MatMul", [m.node("MatMul", [scores, h]), m.weight(8, 8)])
    mean = forms.reduce_mean(m, h, [2])
    h = m.node("Mul", [m.node("Sub", [h, mean]), m.weight(8)])
    return m.node("MatMul", [forms.reduce_sum(m, h, [1], 0), m.weight(8, 3)]), (16, 6, 8)


def recurrent(m: Maker) -> tuple[str, tuple[int, ...]]:
    x = m.input("x", [5, "N", 4])
    weights = [m.weight(1, 24, 4), m.weight(1, 24, 6), m.weight(1, 48)]
    m.node("LSTM", [x, *weights], outputs=["states", "last"], hidden_size=6)
    return m.node("MatMul", [forms.squeeze(m, "last", [0]), m.weight(6, 3)]), (5, 16, 4)


MODELS = {made.__name__: made for made in (dense, linear, image, sequence, recurrent)}
NEWEST = 27
"""The newest opset that the runtime loads."""


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        # Every model in the oldest and the newest one, and in a third of the others.
        pytest.param(
            name,
            opset,
            marks=() if opset in (10, NEWEST) or (i + opset) % 3 == 0 else pytest.mark.slow,
        )
        for i, name in enumerate(MODELS)
        for opset in range(10, NEWEST + 1)
    ],
)
def test_default_models_of_every_opset_load_and_compute_the_same(name: str, opset: int) -> None:
    m = Maker(opset, ir_version=8 if opset < 20 else 10)
    y, shape = MODELS[name](m)
    model, data = m.model([y]), samples(*shape)
    (want,) = run(model, {"x": data})
    for approach in ("static", "dynamic"):
        backend = OnnxRuntimeBackend(
            model,
            calibration_data=[{"x": data}],
            approach=approach,
            session_options=exact_options(),
        )
        # The next opset has them the other way round.
        for granularity, op_types in zip(
            ("per_channel", "per_tensor"), ("default", "all")[:: (-1) ** opset], strict=True
        ):
            space = backend.tuning_space(
                op_types=op_types,
                op_type_dict={"Conv|Gemm|MatMul|LSTM": {"weight": {"granularity": [granularity]}}},
            )
            (got,) = backend.quantize(space.default()).run({"x": data})
            error = np.abs(got - want).max() / np.abs(want).max()
            assert error <= 0.06, (approach, granularity, op_types)
