"""Ops in float16 and bfloat16, and weights that are stored in float16."""

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
import onnxruntime
import optuna
import pytest
from spaces import objective_of

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.lower_precision.types import FLOAT_TYPES
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.study.trial_view import TrialView


HALF, BRAIN = OpConfig("fp16"), OpConfig("bf16")
BOTH = pytest.mark.parametrize("option", [HALF, BRAIN], ids=["fp16", "bf16"])
WEIGHT, BIAS = samples(12, 5, seed=2), samples(5, seed=3)


def nearest_bfloat16(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The nearer of the two neighbours, of equally near ones that whose last bit is 0."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    lower = bits & np.uint32(0xFFFF0000)
    upper = lower + np.uint32(0x10000)
    exact, down, up = (a.view(np.float32).astype(np.float64) for a in (bits, lower, upper))
    is_even = lower & np.uint32(0x10000) == 0
    to_down, to_up = np.abs(exact - down), np.abs(up - exact)
    return np.where((to_down < to_up) | ((to_down == to_up) & is_even), down, up)


def rounded(values: NDArray[np.floating], option: OpConfig = HALF) -> NDArray[np.float64]:
    if option == BRAIN:
        return nearest_bfloat16(values)
    return values.astype(np.float16).astype(np.float64)


def cast(values: NDArray[np.float32], data_type: int) -> NDArray[np.float32]:
    """What the runtime makes of values by a Cast and one back."""
    m = Maker()
    lower = m.node("Cast", [m.input("x", ["N"])], to=data_type)
    model = m.model([m.node("Cast", [lower], to=onnx.TensorProto.FLOAT)])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": values})
    return np.asarray(found)


@BOTH
def test_rounding_to_nearest_even(option: OpConfig) -> None:
    """Of weights, which are rounded here, and of activations, which the runtime rounds."""
    kind = FLOAT_TYPES[option.mode]
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    bits[:20_000] = bits[:20_000] & np.uint32(0xFFFF0000) | np.uint32(0x8000)  # ties
    bits[20_000:30_000] &= np.uint32(0x807FFFFF)  # subnormal numbers
    values = bits.view(np.float32)
    edges = [0.0, -0.0, 1.0, kind.largest, -kind.largest, 65504.0, 1 + 2**-8, 1 + 3 * 2**-8]
    values = np.concatenate([np.array(edges, np.float32), values])
    values = values[np.abs(values) <= kind.largest]
    tensor = kind.to_tensor(values)
    assert tensor.data_type == kind.data_type
    stored = np.frombuffer(tensor.raw_data, np.uint16)
    if option == BRAIN:
        floats = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        floats = stored.view(np.float16).astype(np.float32)
    expected = rounded(values, option).astype(np.float32)
    np.testing.assert_array_equal(floats.view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(cast(values, kind.data_type), floats)


@pytest.mark.parametrize(("mode", "largest"), [("fp16", 65504.0), ("bf16", 3.3895313892515355e38)])
def test_what_a_type_can_hold(mode: str, largest: float) -> None:
    kind = FLOAT_TYPES[mode]
    assert kind.can_hold(np.array([-largest, 0.0, largest], np.float32))
    beyond = np.nextafter(np.float32(largest), np.float32(np.inf))
    for value in (beyond, -beyond, np.inf, np.nan):
        assert not kind.can_hold(np.array([0.0, value], np.float32))


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


@BOTH
def test_ops_compute_what_numpy_does(option: OpConfig) -> None:
    """The runtime removes no Cast that rounds."""
    backend = backend_of(chain(), 30, 12)
    space = backend.tuning_space()
    x = samples(30, 12)
    config = space.fp32().with_ops({"Gemm0": option})
    (y,) = backend.quantize(config).run({"x": x})
    products = rounded(x, option) @ rounded(WEIGHT, option)
    middle = rounded(products + rounded(BIAS, option), option)
    expected = middle @ samples(5, 4, seed=4)
    floats = (x @ WEIGHT + BIAS) @ samples(5, 4, seed=4)
    assert np.abs(floats - expected).max() > 1e-3
    # A sum at the edge between two steps may fall on either.
    assert np.median(np.abs(y - expected)) < 1e-5
    assert np.abs(y - expected).max() < np.abs(floats - expected).max()


def test_bfloat16_is_coarser_than_float16() -> None:
    backend = backend_of(chain(), 30, 12)
    fp32 = backend.tuning_space().fp32()
    x = {"x": samples(30, 12)}
    (exact,) = backend.quantize(fp32).run(x)
    errors = {}
    for option in (HALF, BRAIN):
        config = fp32.with_ops({"Gemm0": option, "MatMul0": option})
        (y,) = backend.quantize(config).run(x)
        errors[option.mode] = np.sqrt(np.mean((y - exact) ** 2))
    # 3 bits less of significand.
    assert errors["bf16"] / errors["fp16"] == pytest.approx(8, rel=0.3)


@BOTH
def test_neighbours_share_the_tensor_between_them(option: OpConfig) -> None:
    backend = backend_of(convnet(opset=22), 20, 2, 8, 8)
    space = backend.tuning_space()
    proto = backend.quantize(space.fp32().with_ops({"Conv0": option, "Gemm0": option})).proto
    # Relu and pooling are between the two, so each has its own.
    assert Counter(n.op_type for n in proto.graph.node)["Cast"] == 4
    backend = backend_of(chain(), 30, 12)
    config = backend.tuning_space().fp32().with_ops({"Gemm0": option, "MatMul0": option})
    proto = backend.quantize(config).proto
    assert [n.op_type for n in proto.graph.node] == ["Cast", "Gemm", "MatMul", "Cast"]
    kind = FLOAT_TYPES[option.mode]
    assert {t.data_type for t in proto.graph.initializer} == {kind.data_type}
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)


def test_neighbours_of_different_types() -> None:
    backend = backend_of(chain(), 30, 12)
    config = backend.tuning_space().fp32().with_ops({"Gemm0": HALF, "MatMul0": BRAIN})
    model = backend.quantize(config)
    types = ["Cast", "Gemm", "Cast", "Cast", "MatMul", "Cast"]
    assert [n.op_type for n in model.proto.graph.node] == types
    onnx.shape_inference.infer_shapes(model.proto, check_type=True, strict_mode=True)
    x = samples(30, 12)
    (y,) = model.run({"x": x})
    middle = rounded(rounded(x) @ rounded(WEIGHT) + rounded(BIAS))
    weight = rounded(samples(5, 4, seed=4), BRAIN)
    expected = rounded(rounded(middle, BRAIN) @ weight, BRAIN)
    assert np.median(np.abs(y - expected)) < 1e-5


@BOTH
def test_what_a_neighbour_reads_is_rounded(option: OpConfig) -> None:
    """Between two ops of one type there is no Cast in the file, and a rounding all the same."""
    m = Maker()
    x = samples(50, 12)
    product = m.node("MatMul", [m.input("x", ["N", 12]), m.const(WEIGHT)])
    backend = backend_of(m.model([m.node("Add", [product, m.const(BIAS)])]), 50, 12)
    space = backend.tuning_space(op_types="all")
    model = backend.quantize(space.fp32().with_ops({"MatMul0": option, "Add0": option}))
    assert [n.op_type for n in model.proto.graph.node] == ["Cast", "MatMul", "Add", "Cast"]
    (y,) = model.run({"x": x})
    product = rounded(rounded(x, option) @ rounded(WEIGHT, option), option)
    expected = rounded(product + rounded(BIAS, option), option)
    # A sum at the edge between two steps may fall on either.
    assert np.mean(np.abs(y - expected) > 1e-6) < 0.01


def test_large_weights_in_bfloat16_are_read_from_outside_the_model() -> None:
    m = Maker()
    weight = samples(64, 80, seed=1)
    model = m.model([m.node("MatMul", [m.input("x", ["N", 64]), m.const(weight)])])
    backend = backend_of(model, 30, 64)
    fp32 = backend.tuning_space().fp32()
    candidate = backend.quantize(fp32.with_ops({"MatMul0": BRAIN}))
    x = samples(30, 64)
    (y,) = candidate.run({"x": x})
    expected = rounded(rounded(x, BRAIN) @ rounded(weight, BRAIN), BRAIN)
    assert np.median(np.abs(y - expected)) < 1e-5
    saved = backend.quantize(fp32).nbytes - candidate.nbytes
    assert saved == pytest.approx(weight.nbytes / 2, rel=0.05)
    assert candidate.nbytes == candidate.proto.ByteSize()


@pytest.mark.parametrize("target", ["tensorrt", "qnn", "cuda", "openvino-gpu"])
def test_16_bits_beside_integers(target: str) -> None:
    backend = backend_of(residual(), 20, 3, 6, 6, target=target)
    space = backend.tuning_space(op_types="all")
    x = samples(20, 3, 6, 6)
    (exact,) = backend.quantize(space.fp32()).run({"x": x})
    default = space.default()
    for t in space.tunables:
        # In opset 17 Add has bfloat16, and Conv does not.
        has_both = target in ("tensorrt", "cuda") and t.op_type == "Add"
        assert t.fallbacks == ((BRAIN, HALF, FP32) if has_both else (HALF, FP32))
        for option in t.fallbacks[:-1]:
            config = default.with_ops({op: option for op in t.ops})
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


def test_bfloat16_where_the_opset_has_it() -> None:
    for opset, modes in ((17, ["fp16", "fp32"]), (22, ["bf16", "fp16", "fp32"])):
        backend = backend_of(convnet(opset), 20, 2, 8, 8)
        space = backend.tuning_space()
        tunables = {t.name: [o.mode for o in t.fallbacks] for t in space.tunables}
        assert tunables["Conv0"] == tunables["Conv1"] == modes
        assert tunables["Gemm0"] == ["bf16", "fp16", "fp32"]
    config = space.fp32().with_ops({"Conv0": BRAIN})
    backend = backend_of(convnet(), 20, 2, 8, 8)
    with pytest.raises(ValueError, match=r"'Conv0' \(Conv\) cannot .* no bfloat16 .* opset 17"):
        backend.quantize(config)


def test_user_chooses_among_the_types() -> None:
    backend = backend_of(chain(), 30, 12)
    space = backend.tuning_space(op_type_dict={".*": {"mode": ["static", "fp16", "fp32"]}})
    assert all(t.fallbacks == (HALF, FP32) for t in space.tunables)


def test_bfloat16_where_the_provider_has_it() -> None:
    m = Maker(opset=22)
    x = m.input("x", ["N", 2, 5, 5])
    h = m.node("ConvTranspose", [x, m.weight(2, 3, 2, 2)])
    model = m.model([m.conv(h, 3, 4)])
    for target, modes in (("cuda", ["fp16", "fp32"]), ("tensorrt", ["bf16", "fp16", "fp32"])):
        backend = backend_of(model, 20, 2, 5, 5, target=target)
        space = backend.tuning_space(op_types="all")
        tunables = {t.name: [o.mode for o in t.fallbacks] for t in space.tunables}
        assert tunables["ConvTranspose0"] == modes
        assert tunables["Conv0"] == ["bf16", "fp16", "fp32"]
    config = space.fp32().with_ops({"ConvTranspose0": BRAIN})
    with pytest.raises(ValueError, match=r"'ConvTranspose0' cannot run in mode 'bf16': there are"):
        backend_of(model, 20, 2, 5, 5, target="cuda").quantize(config)


def test_reference_order_of_fallbacks() -> None:
    """bf16, then fp16, then fp32, each op by op before ops are combined, as in the reference."""
    backend = backend_of(chain(), 30, 12)
    space = backend.tuning_space()
    assert all(t.fallbacks == (BRAIN, HALF, FP32) for t in space.tunables)
    sampler = BasicQuantSampler(space, compat="inc2")
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(objective_of(space, lambda _: 0.5), n_trials=1)
    stages = list(dict.fromkeys(TrialView(trial).claim.stage for trial in study.trials))
    # Both ops in FP32 are the baseline.
    assert [s for s in stages if "fallback" in s] + ["accumulated fallback"] == [
        f"{way} fallback{mode}"
        for mode in (" (bf16)", " (fp16)", "")
        for way in ("instance-wise", "accumulated")
    ]


def test_weights_beyond_float16_stay() -> None:
    backend = backend_of(chain(scale=1e6), 30, 12)
    space = backend.tuning_space()
    fallbacks = {t.name: t.fallbacks for t in space.tunables}
    assert fallbacks == {"Gemm0": (BRAIN, HALF, FP32), "MatMul0": (BRAIN, FP32)}
    with pytest.raises(ValueError, match=r"'MatMul0' .* is beyond 65504"):
        backend.quantize(space.fp32().with_ops({"MatMul0": HALF}))


@BOTH
def test_only_16_bits_are_no_quantized_model(option: OpConfig) -> None:
    backend = backend_of(chain(), 30, 12)
    space = backend.tuning_space()
    config = space.fp32().with_fallback("Gemm0", "MatMul0", mode=option.mode)
    assert not config.quantized_ops
    assert backend.fingerprint(config) != backend.fingerprint(space.fp32())


def test_costs_of_16_bits() -> None:
    backend = backend_of(convnet(opset=22), 20, 2, 8, 8)
    space = backend.tuning_space()
    costs = backend.costs(space)
    bits, size = costs.table("bit_operations"), costs.table("size")
    for op in ("Conv0", "Conv1", "Gemm0"):
        for mode in ("fp16", "bf16"):
            assert bits.option_cost(op, mode) == bits.option_cost(op, "fp32") / 4
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
