from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from forked_scripts import written_by
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import exact_options
from onnx_models import residual
from onnx_models import run
from onnx_models import samples
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_static
import pytest
from zygote import Zygote

from optuna_quant.backends.base import ModelLoadError
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime import backend as backend_module
from optuna_quant.backends.onnxruntime.calibration import statistics as statistics_module
from optuna_quant.backends.onnxruntime.model import session_maker
from optuna_quant.backends.onnxruntime.model.fingerprint import fingerprint
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.data.inputs import InputSpec
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.workers.cores import available_cores


DATA = samples(64, 2, 8, 8)


def make_backend(**kwargs: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(convnet(), **{"calibration_data": DATA, **kwargs})


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[int]]]:
    """The calibration passes that have been made: their tensors and sampling sizes."""
    made: list[tuple[list[str], list[int]]] = []
    collect = statistics_module.collect_statistics

    def spy(model: Any, tensors: Any, data: Any, sizes: Any, **kwargs: Any) -> Any:
        made.append((list(tensors), list(sizes)))
        return collect(model, tensors, data, sizes, **kwargs)

    monkeypatch.setattr(statistics_module, "collect_statistics", spy)
    return made


# What a user gets.


def test_quantized_model_computes_what_its_session_does() -> None:
    backend = make_backend(session_options=exact_options())
    config = backend.tuning_space().default()
    model = backend.quantize(config)
    session = backend.session(config)
    assert isinstance(session, ort.InferenceSession)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert model.native() is model.session is model.session

    def evaluate(model: QuantizedModel) -> NDArray[Any]:
        assert model.inputs == (InputSpec("x", np.dtype(np.float32), ("N", 2, 8, 8)),)
        (output,) = model.run({"x": DATA}, model.outputs)
        return np.asarray(output)

    np.testing.assert_array_equal(evaluate(model), session.run(None, {"x": DATA})[0])
    exact = evaluate(backend.quantize(backend.tuning_space().fp32()))
    assert 0 < np.abs(evaluate(model) - exact).max() <= 0.05 * np.abs(exact).max()


def test_model_is_run_as_a_session_is_as_well() -> None:
    backend = make_backend()
    model = backend.quantize(backend.tuning_space().default())
    expected = model.run({"x": DATA})
    np.testing.assert_array_equal(model.run(None, {"x": DATA}), expected)
    np.testing.assert_array_equal(model.run(list(model.outputs), {"x": DATA}), expected)
    with pytest.raises(TypeError, match=r"got None.*model\.run\(feed, outputs\).*model\.session"):
        model.run(None)  # type: ignore[call-overload]


def test_saved_model_is_what_was_evaluated(tmp_path: Path) -> None:
    backend = make_backend()
    model = backend.quantize(backend.tuning_space().default())
    path = tmp_path / "model.int8.onnx"
    model.save(str(path))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": DATA}), model.run({"x": DATA}))
    assert path.stat().st_size == model.nbytes
    assert model.nbytes < backend.quantize(backend.tuning_space().fp32()).nbytes + 4000


@pytest.mark.parametrize("make", [convnet, residual])
def test_fp32_is_the_users_model(make: Any) -> None:
    model = make()
    shape = [d.dim_value or 8 for d in model.graph.input[0].type.tensor_type.shape.dim]
    data = samples(*shape)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    for config in (backend.tuning_space().fp32(), QuantConfig({})):
        candidate = backend.quantize(config)
        assert candidate.proto == model
        np.testing.assert_array_equal(candidate.run({"x": data}), run(model, {"x": data}))


def test_users_model_is_never_changed(tmp_path: Path) -> None:
    model = convnet()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    content, proto = path.read_bytes(), model.SerializeToString()
    for given in (path, model):
        backend = OnnxRuntimeBackend(given, calibration_data=DATA, approach="auto")
        space = backend.tuning_space(op_types="all")
        for index in (0, space.size // 2, space.size - 1):
            backend.quantize(space.config_at(index)).run({"x": DATA})
        backend.executed(space.default())
    assert path.read_bytes() == content
    assert model.SerializeToString() == proto
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_agrees_with_the_stock_quantizer(tmp_path: Path) -> None:
    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = iter([{"x": DATA}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    onnx.save(convnet(), tmp_path / "model.onnx")
    quantize_static(
        tmp_path / "model.onnx",
        tmp_path / "stock.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Relu", "MaxPool", "Flatten", "Gemm"],
    )
    (stock,) = run(onnx.load(tmp_path / "stock.onnx"), {"x": DATA})
    (exact,) = run(convnet(), {"x": DATA})
    backend = make_backend()
    (ours,) = run(backend.quantize(backend.tuning_space().default()).proto, {"x": DATA})
    # The stock quantizer also quantizes the output, and some ranges differ in the last digit.
    step = (exact.max() - exact.min()) / 255
    assert np.abs(ours - stock).max() <= 2 * step
    assert np.mean(ours.argmax(1) == stock.argmax(1)) >= 0.98


def test_several_inputs_and_outputs() -> None:
    m = Maker()
    x, mask = m.input("x", ["N", 4]), m.input("mask", ["N"], onnx.TensorProto.INT64)
    hidden = m.node("Relu", [m.node("Gemm", [x, m.weight(4, 6), m.weight(6)])])
    y = m.node("MatMul", [hidden, m.weight(6, 3)])
    z = m.node("Mul", [y, m.node("Unsqueeze", [m.node("Cast", [mask], to=1), m.const([1])])])
    model = m.model([z, hidden, y])
    data = {"x": samples(32, 4), "mask": np.arange(32) % 2}
    backend = OnnxRuntimeBackend(model, calibration_data=data, session_options=exact_options())
    candidate = backend.quantize(backend.tuning_space(op_types="all").default())
    assert candidate.outputs == (z, hidden, y)
    for actual, exact in zip(candidate.run(data), run(model, data), strict=True):
        assert np.abs(actual - exact).max() <= 0.05 * np.abs(exact).max()


def test_dynamic_batch_and_sequence() -> None:
    batches = [{"x": samples(n, length, 8)} for n, length in ((4, 3), (4, 7), (1, 5))]
    backend = OnnxRuntimeBackend(
        attention(), calibration_data=batches, session_options=exact_options()
    )
    candidate = backend.quantize(backend.tuning_space(op_types="all").default())
    for n, length in ((1, 1), (2, 9), (5, 4)):
        feed = {"x": samples(n, length, 8)}
        (actual,), (exact,) = candidate.run(feed), run(attention(), feed)
        assert actual.shape == (n, length, 8)
        assert np.abs(actual - exact).max() <= 0.15 * np.abs(exact).max()


def test_nodes_without_names() -> None:
    model = convnet()
    for node in model.graph.node:
        node.name = "" if node.op_type == "Conv" else "same"
    backend = OnnxRuntimeBackend(model, calibration_data=DATA)
    space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["Conv_0", "Conv_3", "same_4"]
    named = make_backend()
    assert backend.fingerprint(space.default()) == named.fingerprint(
        named.tuning_space().default()
    )


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_external_data_by_reference(
    approach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        backend_module, "load_model", lambda model: load_model(model, in_memory_bytes=0)
    )
    m = Maker()
    h = m.node("Relu", [m.node("MatMul", [m.input("x", ["N", 32]), m.weight(32, 32)])])
    model = m.model([m.node("Gemm", [h, m.weight(32, 32), m.weight(32)])])
    data = samples(16, 32)
    reference = OnnxRuntimeBackend(model, calibration_data=data, approach=approach)
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=64,
    )
    options = ort.SessionOptions()
    backend = OnnxRuntimeBackend(
        str(tmp_path / "model.onnx"),
        calibration_data=data,
        approach=approach,
        session_options=options,
    )
    space = backend.tuning_space()
    for config in (space.default(), space.default().with_fallback("Gemm0"), space.fp32()):
        candidate, wanted = backend.quantize(config), reference.quantize(config)
        stay = {t.name for t in candidate.proto.graph.initializer if t.external_data}
        assert ("c0" in stay) == (not config["MatMul0"].is_quantized)
        assert ("c1" in stay) == (not config["Gemm0"].is_quantized)
        np.testing.assert_array_equal(candidate.run({"x": data}), wanted.run({"x": data}))
        assert backend.fingerprint(config) == reference.fingerprint(config)
        assert abs(candidate.nbytes - wanted.nbytes) < 300
        assert backend.executed(config) == reference.executed(config)
        (tmp_path / "out").mkdir(exist_ok=True)
        candidate.save(tmp_path / "out" / "saved.onnx")
        saved = ort.InferenceSession(tmp_path / "out" / "saved.onnx")
        np.testing.assert_array_equal(saved.run(None, {"x": data}), candidate.run({"x": data}))


# Calibration.


def test_calibration_is_one_pass_for_all_candidates(passes: list[Any]) -> None:
    backend = make_backend(calibration_sizes=[64, 16])
    space = backend.tuning_space()
    assert not passes
    for index in (0, 5, space.size - 1, space.size // 3):
        backend.quantize(space.config_at(index))
    backend.calibrate()
    ((tensors, sizes),) = passes
    assert (
        tensors == ["Conv0_out", "Flatten0_out", "MaxPool0_out", "Relu0_out", "Relu1_out", "x"][1:]
    )
    assert sorted(sizes) == [16, 64]


def test_ops_on_request_are_calibrated_when_they_are_needed(passes: list[Any]) -> None:
    backend = OnnxRuntimeBackend(residual(), calibration_data=samples(16, 3, 6, 6))
    space = backend.tuning_space(op_types="all")
    backend.quantize(space.default())
    assert len(passes) == 1
    backend.quantize(space.default().with_fallback("Conv0"))
    assert len(passes) == 1
    label = "static a=int8/sym/per_tensor/minmax w=int8/sym/per_tensor/minmax"
    # This one needs the range before the Relu.
    backend.quantize(QuantConfig({"Conv0": OpConfig.from_label(label)}))
    assert [tensors for tensors, _ in passes[1:]] == [["Conv0_out"]]


def test_dynamic_needs_no_calibration(passes: list[Any]) -> None:
    backend = OnnxRuntimeBackend(attention(), approach="dynamic", session_options=exact_options())
    config = backend.tuning_space().default()
    backend.calibrate()
    assert not passes
    assert {op.kernel for op in backend.executed(config).values()} <= {
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
    }
    feed = {"x": samples(4, 5, 8)}
    (actual,), (exact,) = backend.quantize(config).run(feed), run(attention(), feed)
    assert np.abs(actual - exact).max() <= 0.1 * np.abs(exact).max()
    static = QuantConfig({"query": make_backend().capability().ops[0].options[0]})
    with pytest.raises(ValueError, match="static mode needs calibration_data"):
        backend.quantize(static)


def test_static_and_dynamic_in_one_model() -> None:
    backend = OnnxRuntimeBackend(
        attention(),
        calibration_data=samples(32, 5, 8),
        approach="auto",
        session_options=exact_options(),
    )
    space = backend.tuning_space()
    dynamic = {t.name: t.quantized[-1] for t in space.tunables}
    assert all(option.mode == "dynamic" for option in dynamic.values())
    config = space.default().with_ops({"key": dynamic["key"], "out": dynamic["out"]})
    config = config.with_fallback("value")
    executed = backend.executed(config)
    assert [op for op in config.ops if executed[op].integer] == ["query", "key", "out"]
    feed = {"x": samples(4, 5, 8)}
    (actual,), (exact,) = backend.quantize(config).run(feed), run(attention(), feed)
    assert np.abs(actual - exact).max() <= 0.1 * np.abs(exact).max()


def test_calibration_size_matters() -> None:
    data = samples(64, 2, 8, 8)
    data[32:] *= 10
    backend = make_backend(calibration_data=data, calibration_sizes=[64, 32])
    space = backend.tuning_space()
    assert space.calibration_sizes == (64, 32)
    config = space.default()
    assert config.calibration_size == 64
    found = {backend.fingerprint(config.with_calibration_size(n)) for n in (64, 32, None)}
    assert len(found) == 2


def test_statistics_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_backend(cache_dir=tmp_path)
    digest = first.fingerprint(first.tuning_space().default())

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("calibrated again")

    monkeypatch.setattr(
        "optuna_quant.backends.onnxruntime.calibration.calibration._Collector", fail
    )
    second = make_backend(cache_dir=tmp_path)
    assert second.fingerprint(second.tuning_space().default()) == digest


# Fingerprints.


def test_configs_that_build_the_same_model_share_a_fingerprint() -> None:
    # Values on 256 even steps: there is no better range than the full one.
    m = Maker()
    x = m.input("x", ["N", 4])
    model = m.model([m.node("MatMul", [x, m.weight(4, 4)])])
    data = np.linspace(0, 255, 256, dtype=np.float32).reshape(64, 4)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    (op,) = backend.capability().ops
    found = {
        option.label: backend.fingerprint(QuantConfig({op.name: option}))
        for option in op.options
        if option.is_quantized and "percentile" not in option.label
    }
    assert len(found) == 6
    assert len(set(found.values())) == 2, "only the granularity of the weight matters"


def test_settings_that_do_not_reach_the_model_do_not_change_it() -> None:
    # The second Conv reads what the first one wrote, whatever its own algorithm.
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 8, 8]), 2, 2)
    model = m.model([m.node("MatMul", [m.node("Flatten", [h]), m.weight(72, 3)])])
    backend = OnnxRuntimeBackend(model, calibration_data=DATA)
    config = backend.tuning_space().default()
    other = OpConfig.from_label(config["MatMul0"].label.replace("minmax w=", "mse w="))
    assert other != config["MatMul0"]
    changed = config.with_ops({"MatMul0": other})
    assert backend.fingerprint(changed) == backend.fingerprint(config)
    alone = config.with_fallback("Conv0")
    assert backend.fingerprint(alone.with_ops({"MatMul0": other})) != backend.fingerprint(alone)


def test_every_op_changes_the_fingerprint() -> None:
    backend = make_backend()
    config = backend.tuning_space().default()
    found = {backend.fingerprint(config.with_fallback(op)) for op in config.ops}
    found |= {backend.fingerprint(config), backend.fingerprint(config.with_fallback(*config.ops))}
    assert len(found) == len(config.ops) + 2
    assert backend.quantize(config).fingerprint == backend.fingerprint(config)


def test_fingerprints_are_the_same_in_another_process(zygote: Zygote) -> None:
    script = (
        "from onnx_models import convnet, samples\n"
        "from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend\n"
        "from optuna_quant.backends.onnxruntime.model.fingerprint import fingerprint\n"
        "backend = OnnxRuntimeBackend(convnet(), calibration_data=samples(64, 2, 8, 8))\n"
        "print(fingerprint(convnet()), backend.fingerprint(backend.tuning_space().default()))\n"
    )
    # Hashes of strings are others in each process that is not forked by this one.
    of_model, of_candidate = written_by(zygote, script).split()[-2:]
    backend = make_backend()
    assert of_model == fingerprint(convnet())
    assert of_candidate == backend.fingerprint(backend.tuning_space().default())


def test_threads_share_a_backend(passes: list[Any]) -> None:
    backend = make_backend(session_options=ort.SessionOptions())
    space = backend.tuning_space()
    configs = [space.config_at(i * 37 % space.size) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda config: backend.quantize(config).run({"x": DATA})[0], configs)
        )
    assert len(passes) == 1
    alone = make_backend()
    for config, output in zip(configs, together, strict=True):
        np.testing.assert_array_equal(alone.quantize(config).run({"x": DATA})[0], output)


def test_session_options_are_used_and_kept() -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    backend = make_backend(session_options=options)
    config = backend.tuning_space().default()
    assert not any(op.integer for op in backend.executed(config).values())
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.optimized_model_filepath == ""


@pytest.mark.parametrize(
    ("cores", "runs", "threads"), [(8, 1, 0), (8, 2, 7), (8, 3, 6), (2, 4, 1)]
)
def test_runs_at_the_same_time_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, runs: int, threads: int
) -> None:
    monkeypatch.setattr(session_maker, "available_cores", lambda: cores)
    backend = make_backend()
    model = backend.quantize(backend.tuning_space().default())
    session = model.session_for(runs)
    # Each run has the thread that called it, and all share one fewer than these.
    assert session.get_session_options().intra_op_num_threads == threads
    assert model.session_for(runs) is session
    assert model.session.get_session_options().intra_op_num_threads == 0
    evaluation = DataEvaluation({"x": DATA, "y": np.zeros(len(DATA))}, "mae", threads=runs)
    evaluation.check(model)
    assert set(model._made) == {1, runs}


def test_the_users_options_are_left_alone() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    backend = make_backend(session_options=options)
    session = backend.quantize(backend.tuning_space().default()).session_for(2)
    assert session.get_session_options().intra_op_num_threads == 1


def test_hyper_threads_are_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4, 5, 9}, raising=False)
    siblings = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5", 9: "9"}
    monkeypatch.setattr(Path, "read_text", lambda path: siblings[int(path.parts[-3][3:])])
    assert available_cores() == 3


def test_where_cores_are_not_known_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "no/such.onnx"}, FileNotFoundError, "no model file"),
        ({"model": b"something else"}, ValueError, "not an ONNX model"),
        ({"calibration_data": None}, ValueError, "'static' needs calibration_data"),
        ({"calibration_data": None, "approach": "auto"}, ValueError, "'auto' needs calib"),
        ({"calibration_data": []}, ValueError, "empty"),
        ({"calibration_data": DATA.astype(np.int64)}, ValueError, "Input 'x'.*int64"),
        ({"calibration_data": DATA[:, :1]}, ValueError, r"Input 'x'.*\(64, 1, 8, 8\)|Input 'x'"),
        ({"calibration_data": {"y": DATA}}, ValueError, "'x' is missing"),
        (
            {"approach": "sometimes"},
            ValueError,
            "one of static, dynamic, weight_only, auto, but got 'some",
        ),
        ({"providers": ["NoProvider"]}, ValueError, "no execution provider 'NoProvider'.*CPU"),
        ({"providers": []}, ValueError, "at least one"),
        ({"calibration_sizes": []}, ValueError, "one or more different"),
        ({"calibration_sizes": [8, 8]}, ValueError, "one or more different"),
        ({"calibration_sizes": [0]}, ValueError, "positive integers, but got 0"),
        ({"calibration_sizes": [1.5]}, ValueError, "positive integers, but got 1.5"),
    ],
)
def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], message: str, passes: list[Any]
) -> None:
    arguments = {"model": convnet(), "calibration_data": DATA, **arguments}
    with pytest.raises(error, match=message):
        OnnxRuntimeBackend(arguments.pop("model"), **arguments)
    assert not passes


def test_model_that_the_runtime_refuses() -> None:
    model = convnet()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ValueError, match="does not load the model.*NoSuchOperator"):
        OnnxRuntimeBackend(model, calibration_data=DATA)


@pytest.mark.parametrize(
    ("op", "label", "message"),
    [
        ("Conv9", "fp32", "no op 'Conv9'"),
        ("Relu0", "static a=uint8/asym/per_tensor/minmax", "'Relu0' cannot run in static mode"),
        ("Conv0", "bf16", "cannot run in mode 'bf16'"),
        ("Conv0", "static a=uint8/asym/per_tensor/minmax", "Op 'Conv0'.*weight"),
        ("Relu0", "dynamic w=int8/sym/per_tensor/minmax", "'Relu0'.*no dynamic mode"),
    ],
)
def test_configs_that_do_not_fit(op: str, label: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_backend().quantize(QuantConfig({op: OpConfig.from_label(label)}))


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match="no recipe 'smooth_quantization'.*'smooth_quant'"):
        make_backend().quantize(QuantConfig({}, {"smooth_quantization": "on"}))
    with pytest.raises(
        ValueError, match="'smooth_quant' has no value 0.5: its values are strings"
    ):
        make_backend().quantize(QuantConfig({}, {"smooth_quant": 0.5}))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package_names_the_extra(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nimport optuna_quant.backends.onnxruntime"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "optuna_quant[onnx]"' in done.stderr


def test_candidate_that_the_runtime_does_not_load_says_so() -> None:
    model = convnet()
    model.graph.node[0].op_type = "Cnov"
    sessions = SessionMaker(["CPUExecutionProvider"], None)
    candidate = QuantizedModel(model, sessions, fingerprint="none")
    for use in (candidate.native, lambda: candidate.run({}), lambda: candidate.inputs):
        with pytest.raises(ModelLoadError, match=r"does not load the candidate: .*Cnov.*in FP32"):
            use()
