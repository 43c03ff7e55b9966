from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import onnxruntime as ort
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize


INT64 = onnx.TensorProto.INT64


def overridable(m: Maker) -> None:
    """List every initializer as an input, as some exporters do."""
    for tensor in m.initializers:
        m.input(tensor.name, list(tensor.dims), tensor.data_type)


def embedding(m: Maker) -> str:
    x = m.input("x", ["N", 4, 8])
    ids = m.const(np.arange(4)[None], "ids")
    rows = m.node("Gather", [m.weight(10, 8, name="table"), ids])
    return m.node("Add", [m.node("MatMul", [x, m.weight(8, 8, name="w")]), rows])


def state(m: Maker) -> str:
    """A step of a recurrent network, with a default for the state before it."""
    x = m.input("x", ["N", 8])
    before = m.weight(1, 8, name="state")
    moved = m.node("MatMul", [before, m.weight(8, 8, name="u")])
    read = m.node("MatMul", [x, m.weight(8, 8, name="w")])
    return m.node("Tanh", [m.node("Add", [read, moved])])


def convolution(m: Maker) -> str:
    x = m.input("x", ["N", 2, 5, 5])
    inputs = [x, m.weight(2, 2, 3, 3, name="w"), m.weight(2, name="b")]
    ones = m.const(np.ones(2, np.float32), "variance")
    norm = [m.weight(2, name=name) for name in ("gamma", "beta", "mean")]
    h = m.node("BatchNormalization", [m.node("Conv", inputs), *norm, ones])
    return m.node("Mul", [h, m.const(np.array([1.5], np.float32), "gain")])


def norm_alone(m: Maker) -> str:
    x = m.input("x", ["N", 2, 5, 5])
    ones = m.const(np.ones(2, np.float32), "variance")
    norm = [m.weight(2, name=name) for name in ("gamma", "beta", "mean")]
    return m.conv(m.node("BatchNormalization", [x, *norm, ones]), 2, 2)


def turned(m: Maker) -> str:
    x = m.input("x", ["N", 8])
    weight = m.node("Transpose", [m.weight(6, 8, name="w")], perm=[1, 0])
    h = m.node("Add", [m.node("MatMul", [x, weight]), m.weight(6, name="bias")])
    return m.node("Gemm", [h, m.weight(6, 4, name="v"), m.weight(4, name="c")])


def left(m: Maker) -> str:
    x = m.input("x", ["N", 8, 3])
    h = m.node("MatMul", [m.weight(8, 8, name="w"), x])
    return m.node("Slice", [h, *(m.const(np.array([v]), n) for n, v in (("from", 1), ("to", 5)))])


def recurrent(m: Maker) -> str:
    x = m.input("x", [5, "N", 4])
    weights = [m.weight(1, 24, 4, name="w"), m.weight(1, 24, 6, name="r"), m.weight(1, 48)]
    m.node("LSTM", [x, *weights], outputs=["states", "last"], hidden_size=6)
    return "last"


CASES: dict[str, tuple[Callable[[Maker], str], set[str]]] = {
    "embedding": (embedding, {"ids"}),
    "state": (state, {"state"}),
    "convolution": (convolution, {"gain"}),
    "norm alone": (norm_alone, {"gamma", "beta", "mean", "variance"}),
    "turned": (turned, set()),
    "left": (left, {"from", "to"}),
    "recurrent": (recurrent, {"c2"}),
}


@pytest.mark.parametrize("name", CASES)
def test_only_weights_leave_the_inputs(name: str) -> None:
    make, kept = CASES[name]
    m = Maker()
    y = make(m)
    overridable(m)
    graph = normalize(load_model(m.model([y])))
    assert graph.inputs == {"x"} | kept


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"state"}))
def test_weights_that_are_inputs_are_quantized_as_others_are(name: str) -> None:
    make, _ = CASES[name]
    offered = []
    for listed in (False, True):
        m = Maker()
        y = make(m)
        if listed:
            overridable(m)
        dims = m.inputs[0].type.tensor_type.shape.dim
        data = [{"x": samples(*(dim.dim_value or 16 for dim in dims))}]
        backend = OnnxRuntimeBackend(m.model([y]), calibration_data=data, approach="auto")
        ops = backend.capability().ops
        offered.append([(op.name, op.op_type) for op in ops if op.default])
    assert offered[0] == offered[1] != []


def test_what_depends_on_a_default_alone_is_not_calibrated() -> None:
    m = Maker()
    y = state(m)
    overridable(m)
    backend = OnnxRuntimeBackend(m.model([y]), calibration_data=samples(8, 8), approach="static")
    # Not "MatMul0", which reads the state, nor the sum with what that gives.
    assert [op.name for op in backend.capability().ops] == ["MatMul1"]
    dynamic = OnnxRuntimeBackend(m.model([y]), approach="dynamic")
    assert [op.name for op in dynamic.capability().ops] == ["MatMul0", "MatMul1"]


@pytest.mark.parametrize(
    ("make", "shape", "given"),
    [
        (embedding, (4, 8), {"ids": np.array([[5, 6, 7, 8]])}),
        (state, (8,), {"state": samples(1, 8, seed=5)}),
        (convolution, (2, 5, 5), {"gain": np.array([-0.5], np.float32)}),
        (left, (8, 3), {"from": np.array([0]), "to": np.array([4])}),
    ],
)
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_candidates_take_what_callers_give(
    make: Callable[[Maker], str],
    shape: tuple[int, ...],
    given: dict[str, np.ndarray],
    approach: str,
) -> None:
    if approach == "dynamic" and make in (convolution, left):
        approach = "auto"
    m = Maker()
    y = make(m)
    overridable(m)
    model, data = m.model([y]), samples(32, *shape)
    backend = OnnxRuntimeBackend(
        model, calibration_data=data, approach=approach, session_options=exact_options()
    )
    quantized = backend.quantize(backend.tuning_space().default())
    names = {value.name for value in quantized.session.get_overridable_initializers()}
    assert names >= given.keys()
    feed = {"x": data, **given}
    (want,) = ort.InferenceSession(model.SerializeToString()).run(None, feed)
    (default,) = run(model, {"x": data})
    (got,) = quantized.run(feed)
    assert np.abs(got - want).max() <= 0.05 * np.abs(want).max()
    assert np.abs(got - default).max() > 0.2 * np.abs(want).max()
