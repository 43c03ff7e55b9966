"""Models that refer to their large initializers are the whole models, in all that shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import contextlib
import gc
import os
from typing import Any
import weakref

from exact_models import MODELS
from exact_models import candidates
from exact_models import exact
from exact_models import linear_layers
import numpy as np
import onnx
from onnx import numpy_helper
from onnx_models import Maker
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import SharedArrays
from optuna_quant.backends.onnxruntime.model.compact import compacted
from optuna_quant.backends.onnxruntime.model.fingerprint import fingerprint
from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference


CPU = ("CPUExecutionProvider",)


def referenced(model: CompactModel) -> list[str]:
    return [tensor.name for tensor in model.proto.graph.initializer if is_reference(tensor)]


def in_session(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=CPU)
    return list(session.run(None, feed))


@contextlib.contextmanager
def counted(owner: type, name: str, key: Any = lambda *args: None) -> Iterator[Counter[Any]]:
    """Count the calls of a method."""
    found: Counter[Any] = Counter()
    original = getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        found[key(*args)] += 1
        return original(*args, **kwargs)

    setattr(owner, name, counting)
    try:
        yield found
    finally:
        setattr(owner, name, original)


@pytest.mark.parametrize("name", MODELS)
def test_a_candidate_is_the_whole_model(name: str) -> None:
    _, data = MODELS[name]()
    feed = {key: value[:, :5] if name == "recurrent" else value[:5] for key, value in data.items()}
    if name == "table":
        feed["gain"] = data["gain"][0]
    for what, model in candidates(name).items():
        assert model.nbytes == model.proto.ByteSize(), what
        assert fingerprint(model.proto) == model.fingerprint, what
        assert not any(is_reference(tensor) for tensor in model.proto.graph.initializer)
        assert referenced(model._model) or what != "fp32"
        assert set(model._model.outside) == set(referenced(model._model)), what
        ours, theirs = model.run(feed), in_session(model.proto, feed)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=what)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("linear", "fp32"),
        ("linear", "default"),
        ("linear", "dynamic"),
        ("conv", "first in fallback"),
        ("table", "every second in fallback"),
        ("recurrent", "default"),
    ],
)
def test_the_runtime_makes_the_same_graph(tmp_path: Any, name: str, what: str) -> None:
    model = candidates(name)[what]
    assert referenced(model._model)

    def optimized(proto: onnx.ModelProto, values: dict[str, Any]) -> onnx.GraphProto:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        if values:
            options.add_external_initializers(list(values), list(values.values()))
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=CPU)
        return onnx.load(tmp_path / "optimized.onnx").graph

    arrays, compact = SharedArrays(), model._model
    values = {name: arrays.value(source) for name, source in compact.outside.items()}
    ours, theirs = optimized(compact.proto, values), optimized(model.proto, {})
    assert [n.SerializeToString() for n in ours.node] == [
        n.SerializeToString() for n in theirs.node
    ]
    found, expected = (
        {t.name: numpy_helper.to_array(t).tobytes() for t in graph.initializer}
        for graph in (ours, theirs)
    )
    assert found == expected


def test_sizes_count_all_that_a_tensor_says() -> None:
    model, _ = linear_layers()
    first, second = model.graph.initializer[0], model.graph.initializer[2]
    first.doc_string = "weights of the first layer"
    second.data_location = onnx.TensorProto.DEFAULT
    model.doc_string, model.producer_name = "a model", "a producer"
    model.metadata_props.add(key="k", value="v")
    compact = compacted(model)
    assert {"first", second.name} <= set(referenced(compact))
    assert compact.nbytes == model.ByteSize()
    assert CompactModel(compact.proto, compact.outside).whole() == model


def test_what_must_stay_in_the_model_stays() -> None:
    m = Maker()
    x = m.input("x", ["N", 64])
    m.input("default", [64, 64])
    m.const(exact(64, 64), "default")
    m.const(np.arange(1024, dtype=np.int64) % 64, "places")
    m.const(exact(31, 33), "almost_large")
    h = m.node("Gather", [m.node("MatMul", [x, "default"]), "places"], axis=1)
    h = m.node("MatMul", [h, m.const(exact(1024, 31), "large")])
    model = m.model([m.node("MatMul", [h, "almost_large"])])
    unusual = model.graph.initializer.add(name="listed", data_type=onnx.TensorProto.FLOAT)
    unusual.dims.extend([64, 64])
    unusual.float_data.extend(exact(64, 64).reshape(-1).tolist())
    assert referenced(compacted(model)) == ["large"]


def test_a_trial_writes_no_weights_and_makes_one_session() -> None:
    model, data = linear_layers()
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    space = backend.tuning_space()
    backend.calibrate()
    ops = [op for tunable in space.tunables for op in tunable.ops]
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    backend.quantize(space.default())  # The first one looks at the processor.
    with (
        counted(onnx.ModelProto, "SerializeToString", onnx.ModelProto.ByteSize) as written,
        counted(onnxruntime.InferenceSession, "__init__") as sessions,
    ):
        candidate = backend.quantize(space.default().with_fallback(ops[0]))
        assert candidate.nbytes > 0
        candidate.run({"x": data["x"]})
        candidate.run({"x": data["x"]})
        assert candidate.session is candidate.session_for(1)
    assert sum(sessions.values()) == 1
    assert sum(written.values()) == 1
    assert max(written) < weights / 4


def test_the_fp32_model_is_loaded_once_until_there_is_a_candidate() -> None:
    model, data = linear_layers()
    with counted(onnxruntime.InferenceSession, "__init__") as sessions:
        backend = OnnxRuntimeBackend(model, calibration_data=data)
        space = backend.tuning_space()
        for _ in range(3):
            backend.quantize(space.fp32()).run({"x": data["x"]})
        assert sum(sessions.values()) == 1
    kept = weakref.ref(backend.quantize(space.fp32()).session)
    backend.quantize(space.default())
    gc.collect()
    assert kept() is None, "no memory is held for a session that is gone"
    held = backend.quantize(space.fp32())
    assert backend.quantize(space.fp32()) is held


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_no_session_is_held_over_a_fork() -> None:
    model, data = linear_layers()
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    fp32 = backend.tuning_space().fp32()
    kept = weakref.ref(backend.quantize(fp32).session)
    assert kept() is not None
    child = os.fork()
    if child == 0:
        os._exit(int(kept() is not None))
    assert os.waitpid(child, 0)[1] == 0
    backend.quantize(fp32).run({"x": data["x"]})


def test_a_session_outlives_its_model() -> None:
    model, data = linear_layers()
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    config = backend.tuning_space().default().with_fallback("MatMul0")
    candidate = backend.quantize(config)
    expected = candidate.run({"x": data["x"]})
    session = candidate.session
    del candidate, backend, model
    gc.collect()
    rubbish = [np.full((64, 64), np.nan, np.float32) for _ in range(200)]
    np.testing.assert_array_equal(session.run(None, {"x": data["x"]})[0], expected[0])
    del rubbish


def test_with_options_of_the_user_sessions_get_the_whole_model() -> None:
    model, data = linear_layers()
    options = onnxruntime.SessionOptions()
    ours = OnnxRuntimeBackend(model, calibration_data=data, session_options=options)
    usual = OnnxRuntimeBackend(model, calibration_data=data)
    for config in (usual.tuning_space().fp32(), usual.tuning_space().default()):
        one, other = ours.quantize(config), usual.quantize(config)
        assert one.proto.SerializeToString() == other.proto.SerializeToString()
        feed = {"x": data["x"]}
        np.testing.assert_array_equal(one.run(feed)[0], other.run(feed)[0])


def test_arrays_are_shared_and_bounded() -> None:
    tensors = [numpy_helper.from_array(exact(64, 64, step=s), f"w{s}") for s in (7, 11, 13)]
    arrays = SharedArrays(max_bytes=2 * 64 * 64 * 4)
    values = [arrays.value(tensor) for tensor in tensors[:2]]
    again = [arrays.value(tensor) for tensor in tensors[:2]]
    assert [v.data_ptr() for v in values] == [v.data_ptr() for v in again]
    values.append(arrays.value(tensors[2]))
    assert arrays.nbytes == 2 * 64 * 64 * 4
    for value, tensor in zip(values, tensors, strict=True):
        np.testing.assert_array_equal(value.numpy(), numpy_helper.to_array(tensor))
    own = exact(64, 64)
    assert arrays.value(own).data_ptr() == own.ctypes.data


def test_threads_share_arrays() -> None:
    tensor = numpy_helper.from_array(exact(256, 256), "w")
    arrays = SharedArrays()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: arrays.value(tensor).data_ptr(), range(200)))
    assert len(set(found)) == 1


def test_threads_get_the_same_candidates() -> None:
    model, data = linear_layers()
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    space = backend.tuning_space()
    configs = [space.fp32(), space.default(), space.default().with_fallback("MatMul0")] * 4

    def result(config: Any) -> tuple[str, bytes]:
        candidate = backend.quantize(config)
        return candidate.fingerprint, candidate.run({"x": data["x"]})[0].tobytes()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(result, configs))
    assert len(set(found)) == 3
    assert found[:3] * 4 == found


def test_a_model_can_be_given_as_it_is() -> None:
    model, data = linear_layers()
    candidate = QuantizedModel(model, SessionMaker(CPU, None), fingerprint="none")
    assert candidate.proto is model
    assert candidate.nbytes == model.ByteSize()
    (found,) = candidate.run({"x": data["x"]})
    np.testing.assert_array_equal(found, in_session(model, {"x": data["x"]})[0])
