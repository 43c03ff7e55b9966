from __future__ import annotations

from collections.abc import Iterator
import gc
import logging
from typing import Any
import weakref

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import exact_options
from onnx_models import fused_attention
from onnx_models import residual
from onnx_models import run
from onnx_models import samples
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.sensitivity import pieces as sensitivity_module
from optuna_quant.backends.sensitivity.output import OutputSensitivity
from optuna_quant.data.inputs import InputSpec
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import MSEV2QuantSampler
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


COARSE = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax")


def chain(bad: int | None = 1, depth: int = 4) -> onnx.ModelProto:
    """Matrix products; one has a weight that a single grid does not fit. Input (N, 8)."""
    m = Maker(seed=3)
    h = m.input("x", ["N", 8])
    for i in range(depth):
        weight = m.rng.standard_normal((8, 8)).astype(np.float32) / 3
        if i == bad:
            weight[:, 0] *= 300
            weight[0, 0] += 1000
        h = m.node("MatMul", [h, m.const(weight)])
        if i == bad:
            # What is behind it sees channels of equal size again.
            h = m.node("Div", [h, m.const(np.array([1000.0] + [1.0] * 7, np.float32))])
        h = m.node("Tanh", [h])
    return m.model([h])


def make_backend(model: onnx.ModelProto, **kwargs: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, **{"calibration_data": data_for(model, 64), **kwargs})


def coarse(space: TuningSpace) -> QuantConfig:
    """Every op with one grid for its whole weight."""
    return QuantConfig({op: COARSE for tunable in space.tunables for op in tunable.ops})


def data_for(model: onnx.ModelProto, size: int = 8) -> NDArray[Any]:
    """Samples for a model with one input."""
    (value,) = model.graph.input
    shape = [d.dim_value or size for d in value.type.tensor_type.shape.dim]
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return np.arange(np.prod(shape), dtype=np.int32).reshape(shape) % 5
    return samples(*shape)


def ranked(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda op: -scores[op])


def variance_error(exact: NDArray[Any], actual: NDArray[Any], axis: int) -> float:
    others = tuple(i for i in range(exact.ndim) if i != axis % exact.ndim)
    squared = ((actual - exact) ** 2).mean(others)
    variance = exact.var(others) + 1e-3 * (exact**2).mean(others)
    by_channel = np.minimum(squared / np.where(variance > 0, variance, 1.0), 1.0).mean()
    return float((squared.sum() / variance.sum() + by_channel) / 2)


# The error of each op's own output.


def test_mse_finds_the_bad_op_and_does_not_blame_others() -> None:
    backend = make_backend(chain())
    config = coarse(backend.tuning_space())
    scores = backend.mse_sensitivity()(config, list(config.ops))
    assert ranked(scores)[0] == "MatMul1"
    assert scores["MatMul1"] > 100 * max(scores[f"MatMul{i}"] for i in (0, 2, 3)) > 0
    without = backend.mse_sensitivity()(config.with_fallback("MatMul1"), list(config.ops))
    assert without["MatMul1"] == 0.0
    for op in ("MatMul0", "MatMul2", "MatMul3"):
        assert without[op] == pytest.approx(scores[op], rel=1e-6)


@pytest.mark.parametrize(
    ("model", "outputs", "axis"),
    [
        (
            convnet(),
            {"Conv0": "Relu0_out", "Conv1": "Relu1_out", "Gemm0": "Gemm0_out"},
            {"Gemm0": -1},
        ),
        (attention(), {"query": "MatMul0_out", "out": "MatMul5_out"}, {"query": -1, "out": -1}),
    ],
)
def test_mse_is_the_error_of_an_op_quantized_alone(
    model: onnx.ModelProto, outputs: dict[str, str], axis: dict[str, int]
) -> None:
    # Where a Relu follows, its output is what is quantized: errors below zero do not count.
    x = data_for(model, 16)
    backend = OnnxRuntimeBackend(model, calibration_data=x)
    config = backend.tuning_space().default()
    scores = backend.mse_sensitivity()(config, list(config.ops))
    for op, tensor in outputs.items():
        alone = backend.quantize(QuantConfig({op: config.ops[op]})).proto
        exact, actual = (_tensor(proto, tensor, x) for proto in (model, alone))
        assert scores[op] == pytest.approx(
            variance_error(exact, actual, axis.get(op, 1)), rel=0.05
        )
        assert scores[op] > 0


def _tensor(model: onnx.ModelProto, name: str, x: NDArray[Any]) -> NDArray[np.float64]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(copy, {"x": x}, optimized=False)[-1].astype(np.float64)


def test_mse_shows_channels_that_drown_in_others() -> None:
    m = Maker()
    x = m.input("x", ["N", 4, 5, 5])
    h = m.conv(x, 4, 4, group=4, bias=False, pads=[1, 1, 1, 1])
    scale = np.array([1000.0, 1.0, 1.0, 1.0], np.float32)
    weight = onnx.numpy_helper.to_array(m.initializers[0]) * scale.reshape(4, 1, 1, 1)
    m.initializers[0].CopyFrom(onnx.numpy_helper.from_array(weight, m.initializers[0].name))
    back = (m.rng.standard_normal((3, 4, 1, 1)) / scale.reshape(1, 4, 1, 1)).astype(np.float32)
    y = m.node("Conv", [h, m.const(back)])
    backend = OnnxRuntimeBackend(m.model([y]), calibration_data=samples(32, 4, 5, 5))
    scores = backend.mse_sensitivity()(backend.tuning_space().default(), ["Conv0", "Conv1"])
    # One grid for all channels of what is between them leaves nothing of three of the four.
    assert scores["Conv0"] > 0.3
    assert scores["Conv1"] > 0.3


@pytest.mark.parametrize(
    "model", [convnet(), residual(), attention(), fused_attention(), convnet(opset=11)]
)
@pytest.mark.parametrize("approach", ["static", "auto", "dynamic"])
def test_mse_sees_every_kind_of_op(model: onnx.ModelProto, approach: str) -> None:
    backend = make_backend(
        model,
        calibration_data=data_for(model),
        approach=approach,
        # Dynamic ops are seen as they run: without VNNI, 8-bit weights would saturate.
        reduce_range=approach != "static",
    )
    space = backend.tuning_space(op_types="all")
    sensitivity = backend.mse_sensitivity()
    for option in (0, -2):  # the last one is the fallback
        config = QuantConfig(
            {
                op: t.options[option if t.options[option].is_quantized else 0]
                for t in space.tunables
                for op in t.ops
            }
        )
        scores = sensitivity(config, list(config.ops))
        assert list(scores) == list(config.ops)
        assert all(0 <= score < 0.1 for score in scores.values())
        # A pooling of numbers on a grid, and the like, may be exact; most are not.
        assert sum(score > 0 for score in scores.values()) > len(scores) / 2


def test_mse_follows_values_that_are_passed_on_as_integers() -> None:
    m = Maker()
    h = m.node("Relu", [m.conv(m.input("x", ["N", 2, 6, 6]), 2, 3)])
    h = m.node("Pad", [h, m.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))])
    h = m.node("MaxPool", [h], kernel_shape=[2, 2])
    y = m.conv(h, 3, 2)
    z = m.node("ArgMax", [m.node("Concat", [h, h], axis=1)], axis=1)
    model = m.model({y: onnx.TensorProto.FLOAT, z: onnx.TensorProto.INT64})
    backend = OnnxRuntimeBackend(model, calibration_data=samples(32, 2, 6, 6))
    config = backend.tuning_space(op_types="all").default()
    scores = backend.mse_sensitivity()(config, list(config.ops))
    assert set(scores) == {"Conv0", "Conv1", "Concat0", "ArgMax0"}
    for op in ("Conv0", "Conv1"):
        alone = backend.mse_sensitivity()(QuantConfig({op: config.ops[op]}), [op])
        assert scores[op] == pytest.approx(alone[op], rel=0.2)
        assert 0 < scores[op] < 0.01


def test_mse_of_a_layer_that_reads_integers() -> None:
    m = Maker()
    x = m.input("x", ["N", "L", 8])
    h = m.node("Add", [m.node("Abs", [x]), x])
    h = m.node(
        "Attention", [h, m.weight(8, 24), m.weight(24)], domain="com.microsoft", num_heads=2
    )
    # The layer runs on integers wherever it is seen: without VNNI, 8-bit weights would saturate.
    backend = OnnxRuntimeBackend(
        m.model([h]), calibration_data=samples(32, 5, 8), reduce_range=True
    )
    config = backend.tuning_space(op_types="all").default()
    assert config.ops["Attention0"].mode == "static"
    sensitivity = backend.mse_sensitivity()
    scores = sensitivity(config, list(config.ops))
    alone = sensitivity(QuantConfig({"Attention0": config.ops["Attention0"]}), ["Attention0"])
    assert scores["Attention0"] == pytest.approx(alone["Attention0"], rel=0.2)
    assert all(0 < score < 0.01 for score in scores.values())


def test_mse_of_an_op_with_outputs_left_out() -> None:
    m = Maker()
    x = m.input("x", [6, "N", 4])
    inputs = [x, m.weight(1, 12, 4), m.weight(1, 12, 3)]
    m.node("LSTM", inputs, outputs=["", "last"], hidden_size=3)
    # 8-bit weights would saturate without VNNI.
    backend = OnnxRuntimeBackend(m.model(["last"]), approach="dynamic", reduce_range=True)
    config = backend.tuning_space().default()
    data = [samples(6, 16, 4, seed=i) for i in range(4)]
    assert 0 < backend.mse_sensitivity(data=data)(config, ["LSTM0"])["LSTM0"] < 0.01


def test_mse_looks_only_at_what_is_quantized() -> None:
    backend = make_backend(convnet())
    sensitivity = backend.mse_sensitivity()
    config = backend.tuning_space().default()
    assert sensitivity(backend.tuning_space().fp32(), list(config.ops)) == dict.fromkeys(
        config.ops, 0.0
    )
    part = sensitivity(config.with_fallback("Conv0"), ["Gemm0", "Conv0"])
    assert list(part) == ["Gemm0", "Conv0"]
    assert part["Conv0"] == 0.0 < part["Gemm0"]
    with pytest.raises(ValueError, match="no op 'Conv9'"):
        sensitivity(config, ["Conv0", "Conv9"])


def test_mse_of_an_op_that_cannot_be_followed_is_zero(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(convnet())
    config = backend.tuning_space().default()
    expected = backend.mse_sensitivity()(config, ["Conv1"])
    quantize = backend.quantize

    def lose(config: QuantConfig) -> Any:
        model = quantize(config)
        for node in model.compact.proto.graph.node:
            if node.name == "Conv0":
                node.output[0] = "elsewhere"
        return model

    monkeypatch.setattr(backend, "quantize", lose)
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    optuna.logging.enable_propagation()
    caplog.set_level(logging.DEBUG)
    scores = backend.mse_sensitivity()(config, ["Conv0", "Conv1"])
    optuna.logging.disable_propagation()
    assert scores == {"Conv0": 0.0, **expected}
    assert "'Conv0' cannot be measured" in caplog.text


def test_mse_of_constant_outputs_is_finite() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    h = m.node("MatMul", [x, m.const(np.zeros((4, 3), np.float32))])
    h = m.node("Relu", [m.node("Add", [h, m.const(np.float32(0.3))])])
    y = m.node("Gemm", [h, m.weight(3, 2), m.weight(2)])
    backend = OnnxRuntimeBackend(
        m.model([y]), calibration_data=samples(16, 4), session_options=exact_options()
    )
    config = backend.tuning_space().default()
    for sensitivity in (backend.mse_sensitivity(), backend.output_sensitivity()):
        scores = sensitivity(config, list(config.ops))
        assert scores["MatMul0"] == 0.0
        assert 0 <= scores["Gemm0"] < 0.1


def test_mse_keeps_no_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def batches() -> Iterator[NDArray[Any]]:
        for i in range(1000):
            read.append(i)
            yield samples(10, 2, 8, 8, seed=i)

    backend = make_backend(convnet(), calibration_sizes=[20], calibration_data=batches)
    config = backend.tuning_space().default()
    backend.calibrate()
    seen: list[int] = []
    pieces = CalibrationData.pieces

    def spy(self: CalibrationData, sizes: Any) -> Any:
        for piece in pieces(self, sizes):
            seen.append(piece.samples)
            yield piece

    monkeypatch.setattr(CalibrationData, "pieces", spy)
    results = []
    for limit in (1 << 28, 10_000, 1):
        monkeypatch.setattr(sensitivity_module, "_PIECE_BYTES", limit)
        read.clear()
        seen.clear()
        results.append(backend.mse_sensitivity(samples=25)(config, list(config.ops)))
        assert max(read) == 2
        assert sum(seen[1:]) == 25
        # 2 * (4 * 36 + 6 * 4 + 5) floats for each sample, and 4 * 9 + 6 * 4 that are read.
        assert max(seen) == {1 << 28: 10, 10_000: 6, 1: 1}[limit]
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-4)


# The error of the model's outputs.


def test_output_finds_the_bad_op() -> None:
    backend = make_backend(chain(), session_options=exact_options())
    config = coarse(backend.tuning_space())
    scores = backend.output_sensitivity()(config, list(config.ops))
    assert ranked(scores)[0] == "MatMul1"
    assert scores["MatMul1"] > 100 * max(scores[f"MatMul{i}"] for i in (0, 2, 3))


def test_output_is_the_error_of_an_op_quantized_alone() -> None:
    backend = make_backend(convnet())
    config = backend.tuning_space().default()
    scores = backend.output_sensitivity(batches=3, batch_size=8)(config, list(config.ops))
    x = samples(64, 2, 8, 8)[:24]
    (exact,) = run(convnet(), {"x": x})
    for op, score in scores.items():
        (actual,) = backend.quantize(QuantConfig({op: config.ops[op]})).run({"x": x})
        expected = np.square(actual - exact).mean() / (exact.var() + 1e-3 * (exact**2).mean())
        assert score == pytest.approx(expected, rel=0.01)


class FakeModel:
    """The outputs of a model as a function of which of its ops are quantized."""

    def __init__(self, fingerprint: str, output: NDArray[Any], runs: list[str]) -> None:
        self.fingerprint = fingerprint
        self._output = output
        self._runs = runs

    outputs = ("y",)

    def run(self, feed: Any, outputs: Any = None) -> Any:
        self._runs.append(self.fingerprint)
        return [self._output]


class Fakes:
    """Builds fakes and keeps count; an error is what ``table`` has for the quantized ops."""

    def __init__(self, table: dict[str, float], same: dict[str, str] | None = None) -> None:
        self.table = table
        self.same = same or {}
        self.built: list[str] = []
        self.runs: list[str] = []
        self.alive: list[weakref.ref[FakeModel]] = []

    def __call__(self, config: QuantConfig) -> Any:
        name = "".join(config.quantized_ops)
        self.built.append(name)
        exact = np.tile(np.array([1.0, -1.0], np.float32), 500)
        error = np.float32(np.sqrt(self.table.get(name, 0.0)))
        model = FakeModel(self.same.get(name, name), exact + error, self.runs)
        self.alive.append(weakref.ref(model))
        return model

    def sensitivity(self, **kwargs: Any) -> OutputSensitivity:
        spec = InputSpec("x", np.dtype(np.float32), ("N", 1))
        data = CalibrationData(samples(64, 1), [spec])
        return OutputSensitivity(self, data, **kwargs)


def config_of(ops: str) -> QuantConfig:
    return QuantConfig(dict.fromkeys(ops, COARSE))


def test_errors_that_add_up_are_those_of_each_op_alone() -> None:
    fakes = Fakes({"a": 0.3, "b": 0.1, "c": 0.02, "abc": 0.4, "bc": 0.11})
    sensitivity = fakes.sensitivity()
    scores = sensitivity(config_of("abc"), "abc")
    assert scores == pytest.approx({"a": 0.3, "b": 0.1, "c": 0.02}, rel=2e-3)
    assert sorted(fakes.built) == ["", "a", "abc", "b", "c"]
    # Given what is in fallback, only that configuration is new.
    fakes.built.clear()
    scores = sensitivity(config_of("abc").with_fallback("a"), "abc")
    assert scores == pytest.approx({"a": 0.0, "b": 0.1, "c": 0.02}, rel=2e-3)
    assert fakes.built == ["bc"]


def test_where_ops_matter_together_it_is_what_their_fallback_gains() -> None:
    table = {"abc": 0.5, "a": 0.001, "b": 0.001, "c": 0.03, "bc": 0.1, "ac": 0.04, "ab": 0.6}
    scores = Fakes(table).sensitivity()(config_of("abc"), "abc")
    assert scores == pytest.approx({"a": 0.4, "b": 0.46, "c": -0.1}, rel=2e-3)


def test_output_of_a_hopeless_model_still_ranks() -> None:
    # Taking one back does not help, or even harms; alone each shows what it does.
    table = {"abc": 0.9, "a": 0.5, "b": 0.7, "c": 0.01, "bc": 0.95, "ac": 0.9, "ab": 0.8}
    assert ranked(Fakes(table).sensitivity()(config_of("abc"), "abc")) == ["b", "a", "c"]


def test_equal_models_and_configurations_are_run_once() -> None:
    fakes = Fakes({"a": 0.2, "ab": 0.2}, same={"ab": "a"})
    sensitivity = fakes.sensitivity(batches=2, batch_size=16)
    first = sensitivity(config_of("ab"), "ab")
    # Two batches each: of the reference, of "ab", which is "a" too, and of "b".
    assert sorted(fakes.runs) == ["", "", "a", "a", "b", "b"]
    assert sensitivity(config_of("ab"), "ab") == first
    assert len(fakes.built) == 4
    assert len(fakes.runs) == 6


def test_no_model_is_kept() -> None:
    fakes = Fakes({"a": 0.3, "b": 0.1, "ab": 5.0})
    sensitivity = fakes.sensitivity()
    sensitivity(config_of("ab"), "ab")
    gc.collect()
    assert fakes.alive
    assert not any(model() for model in fakes.alive)


def test_output_of_nothing_quantized_runs_nothing() -> None:
    fakes = Fakes({})
    config = config_of("ab").with_fallback("a", "b")
    assert fakes.sensitivity()(config, "ab") == {"a": 0.0, "b": 0.0}
    assert not fakes.built


# Models of all kinds.


def two_branches() -> onnx.ModelProto:
    """Two inputs, and as outputs scores, a label, and the mask as it came."""
    m = Maker()
    x, mask = m.input("x", ["N", 4]), m.input("mask", ["N", 6])
    h = m.node("Mul", [m.node("Relu", [m.node("Gemm", [x, m.weight(4, 6), m.weight(6)])]), mask])
    y = m.node("MatMul", [h, m.weight(6, 3)])
    label = m.node("ArgMax", [y], axis=1, keepdims=0)
    same = m.node("Identity", [mask])
    return m.model({y: 1, label: onnx.TensorProto.INT64, same: 1})


@pytest.mark.parametrize("name", ["mse_sensitivity", "output_sensitivity"])
def test_several_inputs_and_outputs(name: str) -> None:
    data = {"x": samples(40, 4), "mask": (samples(40, 6) > 0).astype(np.float32)}
    backend = OnnxRuntimeBackend(two_branches(), calibration_data=data)
    config = backend.tuning_space(op_types="all").default()
    scores = getattr(backend, name)()(config, list(config.ops))
    assert set(scores) == {"Gemm0", "Mul0", "MatMul0", "ArgMax0"}
    assert all(np.isfinite(score) for score in scores.values())
    assert min(scores["Gemm0"], scores["MatMul0"]) > 0


@pytest.mark.parametrize("name", ["mse_sensitivity", "output_sensitivity"])
@pytest.mark.parametrize("model", [convnet(), residual(), attention()])
def test_scores_are_reproducible(name: str, model: onnx.ModelProto) -> None:
    found = []
    for _ in range(2):
        backend = make_backend(model)
        sensitivity = getattr(backend, name)()
        config = backend.tuning_space().default()
        found += [sensitivity(config, list(config.ops)) for _ in range(2)]
    assert all(scores == found[0] for scores in found[1:])


@pytest.mark.parametrize("name", ["mse_sensitivity", "output_sensitivity"])
def test_odd_names(name: str) -> None:
    # Names that the backend itself would give, empty names, and one name for two nodes.
    m = Maker()
    h = m.input("x dequantized", ["N", 4])
    tensors = ["a_alone", "a", "é/ü:0", "x_float", "last"]
    nodes = ["", "", "node one", "node one", "a_alone"]
    for i, (tensor, node) in enumerate(zip(tensors, nodes, strict=True)):
        h = m.node(
            "MatMul",
            [h, m.weight(4, 4, name=f"{tensor}_quantized{i}")],
            outputs=[tensor],
            name=node,
        )
    plain = Maker()
    g = plain.input("x", ["N", 4])
    for _ in tensors:
        g = plain.node("MatMul", [g, plain.weight(4, 4)])
    found = []
    for model in (m.model([h]), plain.model([g])):
        backend = OnnxRuntimeBackend(model, calibration_data=samples(32, 4))
        config = backend.tuning_space().default()
        found.append(list(getattr(backend, name)()(config, list(config.ops)).values()))
    assert len(found[0]) == 5
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["mse_sensitivity", "output_sensitivity"])
def test_data_that_are_needed(name: str) -> None:
    backend = OnnxRuntimeBackend(attention(), approach="dynamic")
    config = backend.tuning_space().default()
    with pytest.raises(ValueError, match="pass data="):
        getattr(backend, name)()
    scores = getattr(backend, name)(data=samples(8, 3, 8))(config, list(config.ops))
    assert all(score > 0 for score in scores.values())
    with pytest.raises(ValueError, match="float32 of shape"):
        getattr(backend, name)(data=samples(8, 3, 7))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_sensitivity", {"samples": 0}),
        ("mse_sensitivity", {"samples": 2.5}),
        ("output_sensitivity", {"batches": 0}),
        ("output_sensitivity", {"batches": True}),
        ("output_sensitivity", {"batch_size": -1}),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any]) -> None:
    (option,) = options
    with pytest.raises(ValueError, match=f"{option} must be a positive integer"):
        getattr(make_backend(convnet()), name)(**options)


@pytest.mark.parametrize("name", ["mse_sensitivity", "output_sensitivity"])
def test_fixed_batch_size(name: str) -> None:
    model = chain()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    backend = OnnxRuntimeBackend(model, calibration_data=samples(16, 8))
    config = coarse(backend.tuning_space())
    scores = getattr(backend, name)()(config, list(config.ops))
    assert ranked(scores)[0] == "MatMul1"


def test_hessian_of_the_calibration_data() -> None:
    pytest.importorskip("torch")
    backend = make_backend(convnet())
    config = backend.tuning_space().default()
    sensitivity = backend.hessian_sensitivity(probes=8, max_samples=16)
    scores = sensitivity(config, list(config.ops))
    assert set(scores) == {"Conv0", "Conv1", "Gemm0"}
    assert all(score > 0 for score in scores.values())
    same = backend.hessian_sensitivity(probes=8, max_samples=16, data={"x": samples(64, 2, 8, 8)})
    assert same(config, list(config.ops)) == pytest.approx(scores, rel=1e-3)
    without = OnnxRuntimeBackend(attention(), approach="dynamic")
    with pytest.raises(ValueError, match="pass data="):
        without.hessian_sensitivity()


# With the strategies.


@pytest.mark.parametrize("sampler", [MSEQuantSampler, MSEV2QuantSampler])
def test_strategy_puts_the_bad_op_in_fallback_first(sampler: Any) -> None:
    backend = make_backend(chain())
    x = samples(64, 8)
    (exact,) = run(chain(), {"x": x})
    space = backend.tuning_space(
        op_type_dict={
            "MatMul": {
                "weight": {"granularity": ["per_tensor"]},
                "activation": {"algorithm": ["minmax"]},
            }
        }
    )
    sensitivity = (
        backend.mse_sensitivity() if sampler is MSEQuantSampler else backend.output_sensitivity()
    )
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)
    study = optuna.create_study(
        direction="maximize", sampler=sampler(space, criterion=criterion, sensitivity=sensitivity)
    )

    def agreement(trial: optuna.Trial) -> float:
        (actual,) = backend.quantize(space.suggest(trial)).run({"x": x})
        return 1.0 - float(np.abs(actual - exact).max())

    study.optimize(agreement, n_trials=3)
    configs = [space.config_from_params(trial.params) for trial in study.trials]
    assert [config.fallback_ops for config in configs[1:]] == [(), ("MatMul1",)]
