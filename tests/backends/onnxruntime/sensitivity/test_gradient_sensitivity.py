"""Sensitivity by gradients, against the exact error of the outputs; and what it falls back to."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import residual
from onnx_models import samples
import optuna
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


pytest.importorskip("torch")

from optuna_quant.backends.onnxruntime.sensitivity.gradient import GradientSensitivity
from optuna_quant.backends.onnxruntime.torch_graph.supported import UnsupportedOperatorError


COARSE = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax")
COUNT = 64


def linear(*scales: float, width: int = 8) -> onnx.ModelProto:
    """Matrix products one after the other, each of this size: input ``x`` of (N, width)."""
    m = Maker(seed=3)
    h = m.input("x", ["N", width])
    for scale in scales:
        h = m.node("MatMul", [h, m.weight(width, width, scale=scale)])
    return m.model([h])


def branches() -> onnx.ModelProto:
    """Two products of one input; the second one is made small before both are added."""
    m = Maker(seed=4)
    x = m.input("x", ["N", 8])
    weight = m.weight(8, 8)
    large = m.node("MatMul", [x, weight])
    small = m.node("Mul", [m.node("MatMul", [x, weight]), m.const(np.float32(0.1))])
    return m.model([m.node("Add", [large, small])])


def backend_of(model: onnx.ModelProto, data: Any = None, **kwargs: Any) -> OnnxRuntimeBackend:
    if data is None:
        (value,) = model.graph.input
        shape = [d.dim_value or COUNT for d in value.type.tensor_type.shape.dim]
        data = samples(*shape)
    return OnnxRuntimeBackend(model, calibration_data=data, **kwargs)


def products(space: TuningSpace) -> list[str]:
    return [op for t in space.tunables if t.op_type == "MatMul" for op in t.ops]


def exact_error(backend: OnnxRuntimeBackend, op: str, x: NDArray[Any], option: OpConfig) -> float:
    """The squared error of the outputs over their variance, with one op quantized.

    No runtime quantizes anything here: only Q/DQ pairs are computed, in floats.
    """
    fp32 = backend.tuning_space().fp32()
    name = backend.quantize(fp32).outputs[0]
    options = [backend.quantize(config) for config in (fp32, fp32.with_ops({op: option}))]
    exact, actual = (model.run({"x": x}, [name])[0] for model in options)
    return float(np.square(actual - exact).mean() / exact.var())


# What it is.


def test_for_a_linear_model_it_is_the_error_of_the_outputs():
    x = samples(COUNT, 8)
    session_options = unoptimized()
    backend = backend_of(linear(0.5, 0.5, 0.5), x, session_options=session_options)
    space = backend.tuning_space()
    ops = products(space)
    config = space.default()
    scores = backend.gradient_sensitivity(samples=COUNT, probes=64)(config, ops)
    for op in ops:
        exact = exact_error(backend, op, x, config.ops[op])
        assert scores[op] == pytest.approx(exact, rel=0.35)


def unoptimized() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def test_what_the_outputs_make_of_an_error_counts():
    """Both ops are the same and have the same error; of one a tenth arrives."""
    backend = backend_of(branches())
    config = backend.tuning_space().default()
    ops = products(backend.tuning_space())
    gradient = backend.gradient_sensitivity(samples=COUNT, probes=4)(config, ops)
    own = backend.mse_sensitivity(samples=COUNT)(config, ops)
    assert own[ops[0]] == pytest.approx(own[ops[1]], rel=1e-3)
    assert gradient[ops[0]] == pytest.approx(100 * gradient[ops[1]], rel=1e-2)


def test_errors_at_different_places_of_a_linear_model_are_in_one_unit():
    """The scale of what is in between does not matter: it scales error and output alike."""
    found = []
    for scales in ((0.5, 0.5), (0.5, 50.0), (0.005, 0.5)):
        backend = backend_of(linear(*scales))
        space = backend.tuning_space()
        sensitivity = backend.gradient_sensitivity(samples=COUNT, probes=8)
        found.append(list(sensitivity(space.default(), products(space)).values()))
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[2] == pytest.approx(found[0], rel=0.05)


def test_more_probes_are_nearer_to_their_mean():
    backend = backend_of(convnet())
    space = backend.tuning_space()
    ops = list(space.default().ops)

    def spread(probes: int) -> float:
        found = [
            backend.gradient_sensitivity(samples=16, probes=probes, seed=seed)(
                space.default(), ops
            )
            for seed in range(6)
        ]
        return float(np.mean([np.std([np.log(s[op] + 1e-12) for s in found]) for op in ops]))

    assert spread(16) < 0.7 * spread(1)


@pytest.mark.parametrize("make", [convnet, residual])
def test_options_scored_together_are_those_scored_alone(make):
    backend = backend_of(make())
    space = backend.tuning_space()
    ops = list(space.default().ops)
    coarse = QuantConfig(
        {t.name: COARSE if COARSE in t.options else t.default for t in space.tunables}
    )
    sensitivity = backend.gradient_sensitivity(samples=16, probes=2)
    together = sensitivity.score_options([space.default(), coarse, space.fp32()], ops)
    alone = [sensitivity(c, ops) for c in (space.default(), coarse, space.fp32())]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert set(together[2].values()) == {0.0}
    assert together[0] != together[1]


def test_same_seed_same_scores_and_the_key_names_what_they_depend_on():
    backend = backend_of(convnet())
    config = backend.tuning_space().default()
    ops = list(config.ops)
    scores = [backend.gradient_sensitivity(samples=8, seed=s)(config, ops) for s in (0, 0, 1)]
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]
    options: list[dict[str, Any]] = [
        {},
        {"samples": 8},
        {"probes": 2},
        {"seed": 1},
        {"outputs": [backend.quantize(config).outputs[0]]},
    ]
    keys = {backend.gradient_sensitivity(**each).key for each in options}
    assert len(keys) == len(options)
    assert backend.gradient_sensitivity().key not in {backend.mse_sensitivity(samples=64).key}


def test_fewer_samples_and_what_they_cost():
    backend = backend_of(convnet())
    config = backend.tuning_space().default()
    ops = list(config.ops)
    whole = backend.gradient_sensitivity(samples=32, probes=2)
    few = whole.with_samples(8)
    assert few(config, ops) == backend.gradient_sensitivity(samples=8, probes=1)(config, ops)
    once = backend.gradient_sensitivity(samples=32, probes=1)
    assert whole.with_samples(1000)(config, ops) == once(config, ops)
    assert 0 < few.passes(1) < whole.passes(1) < whole.passes(3)
    # One pass for each option, one for the floats, and one backwards.
    assert few.passes(2) == 8 * 4


# All kinds of models.


def test_integer_inputs():
    m = Maker(seed=5)
    ids = m.input("ids", ["N", 6], onnx.TensorProto.INT64)
    h = m.node("MatMul", [m.node("Gather", [m.weight(20, 8), ids]), m.weight(8, 8)])
    h = m.node("MatMul", [m.node("Tanh", [h]), m.weight(8, 3)])
    data = {"ids": np.random.default_rng(0).integers(0, 20, (32, 6))}
    backend = backend_of(m.model([h]), data)
    space = backend.tuning_space()
    scores = backend.gradient_sensitivity(samples=16)(space.default(), products(space))
    assert min(scores.values()) > 0


def test_several_outputs_or_the_ones_that_are_named():
    m = Maker(seed=6)
    x = m.input("x", ["N", 8])
    shared = m.node("MatMul", [x, m.weight(8, 8)])
    first = m.node("MatMul", [shared, m.weight(8, 4)])
    second = m.node("MatMul", [shared, m.weight(8, 2)])
    kind = m.node("ArgMax", [second], axis=1)
    model = m.model({first: 1, second: 1, kind: onnx.TensorProto.INT64})
    backend = backend_of(model)
    space = backend.tuning_space()
    ops = products(space)
    both = backend.gradient_sensitivity(samples=32)(space.default(), ops)
    assert min(both.values()) > 0
    only = backend.gradient_sensitivity(samples=32, outputs=[second])(space.default(), ops)
    assert only[ops[1]] == 0.0
    assert only[ops[0]] > 0
    assert only[ops[2]] > 0


def test_no_batch_axis():
    """One value for the whole batch."""
    m = Maker(seed=7)
    h = m.node("MatMul", [m.input("x", ["N", 8]), m.weight(8, 8)])
    backend = backend_of(m.model([m.node("ReduceMean", [m.node("Tanh", [h])], keepdims=0)]))
    space = backend.tuning_space()
    scores = backend.gradient_sensitivity(samples=16)(space.default(), products(space))
    assert all(np.isfinite(score) and score >= 0 for score in scores.values())


def test_sequences_of_any_length():
    backend = backend_of(attention(), samples(16, 5, 8))
    space = backend.tuning_space()
    scores = backend.gradient_sensitivity(samples=8)(space.default(), list(space.default().ops))
    assert min(scores[op] for op in ("query", "key", "value", "out")) > 0


def test_outputs_that_do_not_change_move_by_nothing():
    m = Maker(seed=8)
    h = m.node("MatMul", [m.input("x", ["N", 8]), m.weight(8, 8)])
    constant = m.node("Mul", [h, m.const(np.float32(0))])
    backend = backend_of(m.model([m.node("Add", [constant, m.const(np.float32(2))])]))
    space = backend.tuning_space()
    scores = backend.gradient_sensitivity(samples=16)(space.default(), products(space))
    assert set(scores.values()) == {0.0}


def test_outputs_without_a_gradient_move_by_nothing():
    m = Maker(seed=9)
    h = m.node("MatMul", [m.input("x", ["N", 8]), m.weight(8, 8)])
    backend = backend_of(m.model({m.node("ArgMax", [h], axis=1): onnx.TensorProto.INT64}))
    space = backend.tuning_space()
    scores = backend.gradient_sensitivity(samples=16)(space.default(), products(space))
    assert set(scores.values()) == {0.0}


@pytest.mark.parametrize("function", ["Sqrt", "Log"])
def test_where_outputs_are_infinitely_steep_a_sample_counts_as_wrong_at_most(function: str):
    """A root at zero, and a logarithm near it."""
    m = Maker(seed=10)
    h = m.node("Relu", [m.node("MatMul", [m.input("x", ["N", 8]), m.weight(8, 8)])])
    if function == "Log":
        h = m.node("Add", [h, m.const(np.float32(1e-30))])
    backend = backend_of(m.model([m.node(function, [h])]))
    space = backend.tuning_space()
    scores = backend.gradient_sensitivity(samples=32)(space.default(), products(space))
    assert all(0 < score <= 1 for score in scores.values())


def test_ops_in_floats_score_zero_and_unknown_ones_are_named():
    backend = backend_of(convnet())
    space = backend.tuning_space()
    first, *others = space.default().ops
    config = space.default().with_fallback(first)
    scores = backend.gradient_sensitivity(samples=8)(config, [first, *others])
    assert scores[first] == 0.0
    assert any(scores[op] > 0 for op in others)
    with pytest.raises(ValueError, match="'nothing'"):
        backend.gradient_sensitivity(samples=8)(config, ["nothing"])


@pytest.mark.parametrize("probes", [0, -1, True, 1.5])
def test_probes_that_make_no_sense_are_refused(probes: Any):
    with pytest.raises(ValueError, match=f"probes must be a positive integer, but got {probes}"):
        backend_of(convnet()).gradient_sensitivity(probes=probes)


# The best that is to be had.


@pytest.fixture
def messages() -> Any:
    """What is logged."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            found.append(entry.getMessage())

    handler, before = Handler(), optuna.logging.get_verbosity()
    logger = logging.getLogger("optuna_quant.backends.sensitivity.offered")
    levels = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(levels)
    optuna.logging.set_verbosity(before)


def determinants() -> onnx.ModelProto:
    """A model with an operator that has no counterpart in torch here."""
    m = Maker(seed=12)
    x = m.input("x", ["N", 8])
    h = m.node("MatMul", [x, m.weight(8, 8)])
    h = m.node("Det", [m.node("Reshape", [h, m.const(np.array([-1, 2, 2]))])])
    return m.model([m.node("Reshape", [h, m.const(np.array([-1, 2]))])])


def test_gradients_where_torch_can():
    sensitivity = backend_of(convnet()).sensitivity()
    assert isinstance(sensitivity, GradientSensitivity)


def test_without_a_counterpart_of_an_operator_it_is_the_error_of_own_outputs(messages):
    backend = backend_of(determinants())
    with pytest.raises(UnsupportedOperatorError, match="Det"):
        backend.gradient_sensitivity()
    sensitivity = backend.sensitivity(samples=16)
    assert type(sensitivity) is MSESensitivity
    assert any("Det" in message for message in messages)
    config = backend.tuning_space().default()
    ops = products(backend.tuning_space())
    assert sensitivity(config, ops) == backend.mse_sensitivity(samples=16)(config, ops)


def test_without_torch_it_is_the_error_of_own_outputs(messages, monkeypatch):
    name = "optuna_quant.backends.onnxruntime.sensitivity.gradient"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    backend = backend_of(convnet())
    with pytest.raises(ImportError, match="needs the package torch"):
        backend.gradient_sensitivity()
    assert type(backend.sensitivity()) is MSESensitivity
    assert any('pip install "optuna_quant[torch]"' in message for message in messages)


def test_without_calibration_data_it_says_so():
    backend = OnnxRuntimeBackend(linear(0.5), approach="dynamic")
    assert backend.sensitivity() is None
