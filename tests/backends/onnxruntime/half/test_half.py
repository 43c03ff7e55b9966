"""Ops in float16, and weights that are stored in it."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import numpy_helper
from onnx_models import Maker
from onnx_models import convnet
from onnx_models import residual
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig


HALF = OpConfig("fp16")
WEIGHT, BIAS = samples(12, 5, seed=2), samples(5, seed=3)


def rounded(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)


def chain(*, scale: float = 1.0) -> onnx.ModelProto:
    """Two layers, the second of which also goes out by itself."""
    m = Maker()
    x = m.input("x", ["N", 12])
    h = m.node("Gemm", [x, m.const(WEIGHT), m.const(BIAS)])
    return m.model([m.node("MatMul", [h, m.const(scale * samples(5, 4, seed=4))])])


def backend_of(
    model: onnx.ModelProto, *shape: int, target: str = "tensorrt"
) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, calibration_data={"x": samples(*shape)}, target=target)


def test_float16_computes_what_numpy_does() -> None:
    """The runtime removes no Cast that rounds."""
    backend = backend_of(chain(), 30, 12)
    space = backend.tuning_space()
    x = samples(30, 12)
    config = space.fp32().with_ops({"Gemm0": HALF})
    (y,) = backend.quantize(config).run({"x": x})
    middle = rounded(rounded(x) @ rounded(WEIGHT) + rounded(BIAS))
    expected = middle @ samples(5, 4, seed=4)
    floats = (x @ WEIGHT + BIAS) @ samples(5, 4, seed=4)
    assert np.abs(floats - expected).max() > 1e-3
    # A sum at the edge between two steps may fall on either.
    assert np.median(np.abs(y - expected)) < 1e-5
    assert np.abs(y - expected).max() < np.abs(floats - expected).max()


def test_neighbours_share_the_tensor_between_them() -> None:
    backend = backend_of(convnet(), 20, 2, 8, 8)
    space = backend.tuning_space()
    proto = backend.quantize(space.fp32().with_ops({"Conv0": HALF, "Gemm0": HALF})).proto
    # Relu and pooling are between the two, so each has its own.
    assert Counter(n.op_type for n in proto.graph.node)["Cast"] == 4
    backend = backend_of(chain(), 30, 12)
    config = backend.tuning_space().fp32().with_ops({"Gemm0": HALF, "MatMul0": HALF})
    proto = backend.quantize(config).proto
    assert [n.op_type for n in proto.graph.node] == ["Cast", "Gemm", "MatMul", "Cast"]
    types = {t.name: numpy_helper.to_array(t).dtype for t in proto.graph.initializer}
    assert set(types.values()) == {np.dtype(np.float16)}
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)


@pytest.mark.parametrize("target", ["tensorrt", "qnn", "cuda", "openvino-gpu"])
def test_float16_beside_integers(target: str) -> None:
    backend = backend_of(residual(), 20, 3, 6, 6, target=target)
    space = backend.tuning_space(op_types="all")
    x = samples(20, 3, 6, 6)
    (exact,) = backend.quantize(space.fp32()).run({"x": x})
    default = space.default()
    for t in space.tunables:
        assert t.fallbacks == (HALF, FP32)
        config = default.with_ops({op: HALF for op in t.ops})
        model = backend.quantize(config)
        (y,) = model.run({"x": x})
        onnx.shape_inference.infer_shapes(model.proto, check_type=True, strict_mode=True)
        assert np.abs(y - exact).max() < 0.1 * np.abs(exact).max()
        assert model.fingerprint != backend.fingerprint(default)


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_target_without_float16(target: str) -> None:
    backend = backend_of(convnet(), 20, 2, 8, 8, target=target)
    space = backend.tuning_space()
    assert all(t.fallbacks == (FP32,) for t in space.tunables)
    with pytest.raises(ValueError, match=r"Op 'Conv0' cannot run in mode 'fp16': there are"):
        backend.quantize(space.fp32().with_ops({"Conv0": HALF}))


def test_bfloat16_is_not_offered() -> None:
    space = backend_of(chain(), 30, 12, target="cuda").tuning_space()
    assert "bf16" not in {o.mode for t in space.tunables for o in t.options}


def test_weights_beyond_float16_stay() -> None:
    backend = backend_of(chain(scale=1e6), 30, 12)
    fallbacks = {t.name: t.fallbacks for t in backend.tuning_space().tunables}
    assert fallbacks == {"Gemm0": (HALF, FP32), "MatMul0": (FP32,)}


def test_only_float16_is_no_quantized_model() -> None:
    backend = backend_of(chain(), 30, 12)
    space = backend.tuning_space()
    config = space.fp32().with_fallback("Gemm0", "MatMul0", mode="fp16")
    assert not config.quantized_ops
    assert backend.fingerprint(config) != backend.fingerprint(space.fp32())


def test_costs_of_float16() -> None:
    backend = backend_of(convnet(), 20, 2, 8, 8)
    space = backend.tuning_space()
    costs = backend.costs(space)
    bits, size = costs.table("bit_operations"), costs.table("size")
    for op in ("Conv0", "Conv1", "Gemm0"):
        assert bits.option_cost(op, "fp16") == bits.option_cost(op, "fp32") / 4
    for seed in range(3):
        rng = np.random.default_rng(seed)
        config = space.fp32().with_ops(
            {t.name: t.options[rng.integers(len(t.options))] for t in space.tunables}
        )
        assert size.cost(config) == pytest.approx(backend.quantize(config).nbytes, rel=0.1)


def large(opset: int = 17) -> onnx.ModelProto:
    m = Maker(opset)
    x = m.input("x", ["N", 32])
    h = m.node("Relu", [m.node("Gemm", [x, m.weight(32, 64), m.weight(64)])])
    shared = m.weight(64, 64, name="shared")
    h = m.node("MatMul", [m.node("MatMul", [h, shared]), shared])
    huge = m.const(np.full((64, 64), 1e5, np.float32), "huge")
    return m.model([m.node("Mul", [m.node("MatMul", [h, huge]), m.const(np.float32(1e-5))])])


def test_storage_in_float16() -> None:
    data = {"x": samples(20, 32)}
    usual = OnnxRuntimeBackend(large(), calibration_data=data)
    small = OnnxRuntimeBackend(large(), calibration_data=data, float16_storage=True)
    config = usual.tuning_space().default().with_fallback("MatMul0", "MatMul1", "MatMul2")
    stored = small.quantize(config)
    types = {t.name: numpy_helper.to_array(t).dtype for t in stored.proto.graph.initializer}
    assert types["huge"] == np.float32
    assert "shared" not in types
    halves = [name for name, dtype in types.items() if dtype == np.float16]
    assert halves == ["shared_float16"]
    casts = [n for n in stored.proto.graph.node if n.op_type == "Cast"]
    assert len(casts) == 1
    saved = usual.quantize(config).nbytes - stored.nbytes
    assert 0.9 * 64 * 64 * 2 < saved < 64 * 64 * 2
    (y,), (exact,) = stored.run(data), usual.quantize(config).run(data)
    error = np.abs(y - exact).max() / np.abs(exact).max()
    assert 0 < error < 2e-3
    # The FP32 model is the user's.
    fp32 = small.tuning_space().fp32()
    assert small.fingerprint(fp32) == usual.fingerprint(fp32)
    assert small.signature()["options"] != usual.signature()["options"]


def test_storage_leaves_weights_behind_a_pair() -> None:
    data = {"x": samples(20, 32)}
    backend = OnnxRuntimeBackend(
        large(), calibration_data=data, target="tensorrt", float16_storage=True
    )
    proto = backend.quantize(backend.tuning_space().default()).proto
    assert not any(n.op_type == "Cast" for n in proto.graph.node)


def test_results_of_other_types_are_not_rounded() -> None:
    """A model that has float16 of its own, and compares there."""
    m = Maker()
    x = m.input("x", ["N", 12])
    half = m.node("Cast", [x], to=onnx.TensorProto.FLOAT16)
    zero = m.const(np.zeros(1, np.float16))
    chosen = m.node("Where", [m.node("Greater", [half, zero]), half, zero])
    h = m.node("Cast", [chosen], to=onnx.TensorProto.FLOAT)
    model = m.model([m.node("Gemm", [h, m.const(WEIGHT), m.const(BIAS)])])
    backend = backend_of(model, 30, 12, target="qnn")
    x = samples(30, 12)
    (y,) = backend.quantize(backend.tuning_space().fp32().with_ops({"Gemm0": HALF})).run({"x": x})
    assert np.abs(y - (np.maximum(rounded(x), 0) @ rounded(WEIGHT) + rounded(BIAS))).max() < 0.02
