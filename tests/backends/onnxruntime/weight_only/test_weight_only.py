"""Weight-only candidates compute what their labels say, and take the space that they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime import signature
from optuna_quant.backends.onnxruntime.weight_only import weights
from optuna_quant.backends.weight_algorithms.moments import InputMoments
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


ROWS, WIDTH, COLUMNS = 40, 96, 24


def matmul(*, batch: int | str = "n", columns: int = COLUMNS) -> onnx.ModelProto:
    b = Maker()
    x = b.input("x", [batch, WIDTH])
    return b.model([b.node("MatMul", [x, b.weight(WIDTH, columns, name="w")])])


def values(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def constant(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    (found,) = [t for t in model.graph.initializer if t.name == name]
    return np.asarray(onnx.numpy_helper.to_array(found))


def backend_of(model: onnx.ModelProto, **options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, approach="weight_only", **options)


def build(backend: OnnxRuntimeBackend, **ops: str) -> Any:
    return backend.quantize(
        QuantConfig({n: OpConfig.from_label(label) for n, label in ops.items()})
    )


def dequantized(weight: NDArray[Any], label: str) -> NDArray[np.float32]:
    """What a label says of a weight of shape [outputs, inputs]."""
    config = OpConfig.from_label(label).weight
    assert config is not None
    return quantize_grouped(
        weight,
        bits=config.bits,
        group_size=config.group_size,
        scheme=config.scheme,  # type: ignore[arg-type]
        algorithm=config.algorithm,
    ).dequantized()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", ["per_group=16", "per_group=64", "per_group=256", "per_channel"])
@pytest.mark.parametrize("scheme", ["sym", "asym"])
def test_a_product_in_floats_is_that_of_the_dequantized_weight(
    bits: int, group: str, scheme: str
) -> None:
    model, x = matmul(), values(5, WIDTH)
    label = f"weight_only w=int{bits}/{scheme}/{group}/rtn level=0"
    (result,) = build(backend_of(model), MatMul0=label).run({"x": x})
    expected = x @ dequantized(constant(model, "w").T, label).T
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("group", ["per_group=16", "per_group=256", "per_channel"])
def test_a_product_with_zero_points_in_floats(bits: int, group: str) -> None:
    model, x = matmul(), values(5, WIDTH)
    label = f"weight_only w=int{bits}/asym/{group}/hqq_float level=0"
    (result,) = build(backend_of(model), MatMul0=label).run({"x": x})
    expected = x @ dequantized(constant(model, "w").T, label).T
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scheme", ["sym", "asym"])
def test_on_int8_activations_it_is_that_but_for_their_rounding(bits: int, scheme: str) -> None:
    model, x = matmul(), values(5, WIDTH)
    label = f"weight_only w=int{bits}/{scheme}/per_group=32/rtn level=4"
    (result,) = build(backend_of(model), MatMul0=label).run({"x": x})
    weight = dequantized(constant(model, "w").T, label)
    # Each value of a group is off by at most half a step of 1/127 of the largest, whatever the
    # kernel's blocks: no block of it is larger than the whole row.
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    bound = step * np.abs(weight).sum(axis=1)
    assert np.all(np.abs(result - x @ weight.T) <= bound)


def test_a_sample_does_not_depend_on_its_batch_at_any_level() -> None:
    x = values(6, WIDTH)
    x[0] *= 1000
    for level in (0, 4):
        label = f"weight_only w=int4/asym/per_group=32/rtn level={level}"
        model = build(backend_of(matmul()), MatMul0=label)
        assert not model.depends_on_batch
        (together,), (alone,) = model.run({"x": x}), model.run({"x": x[3:4]})
        np.testing.assert_allclose(together[3:4], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("turned_input", [0, 1])
@pytest.mark.parametrize("bias", [None, (COLUMNS,), (1, COLUMNS), (1,), (5, 1)])
def test_gemm_with_its_attributes(
    turned: int, turned_input: int, bias: tuple[int, ...] | None
) -> None:
    b = Maker()
    x = b.input("x", [WIDTH, 5] if turned_input else [5, WIDTH])
    inputs = [x, b.weight(*((COLUMNS, WIDTH) if turned else (WIDTH, COLUMNS)), name="w")]
    if bias is not None:
        inputs.append(b.weight(*bias, name="b"))
    attributes = {"transA": turned_input, "transB": turned, "alpha": 0.5, "beta": 3.0}
    model = b.model([b.node("Gemm", inputs, **attributes)])
    label = "weight_only w=int4/asym/per_group=32/rtn level=0"
    given = values(WIDTH, 5) if turned_input else values(5, WIDTH)
    (result,) = build(backend_of(model), Gemm0=label).run({"x": given})
    weight = constant(model, "w")
    expected = (
        0.5
        * (given.T if turned_input else given)
        @ dequantized(weight if turned else weight.T, label).T
    )
    if bias is not None:
        expected = expected + 3.0 * constant(model, "b")
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", ["per_group=16", "per_group=64", "per_channel"])
@pytest.mark.parametrize("scheme", ["sym", "asym"])
def test_a_table_gives_its_dequantized_rows(bits: int, group: str, scheme: str) -> None:
    b = Maker()
    rows = b.input("rows", ["n"], onnx.TensorProto.INT64)
    model = b.model([b.node("Gather", [b.weight(ROWS, WIDTH, name="w"), rows])])
    label = f"weight_only w=int{bits}/{scheme}/{group}/rtn"
    (result,) = build(backend_of(model), Gather0=label).run({"rows": np.array([0, 39, -1, 7])})
    expected = dequantized(constant(model, "w"), label)[[0, 39, -1, 7]]
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def shared() -> onnx.ModelProto:
    """Three products with one weight, the third in a model output of its own."""
    b = Maker()
    x, w = b.input("x", ["n", WIDTH]), b.weight(WIDTH, WIDTH, name="w")
    first = b.node("MatMul", [x, w])
    second = b.node("MatMul", [first, w])
    return b.model([second, b.node("MatMul", [x, w])])


def test_ops_that_share_a_weight_have_options_of_their_own() -> None:
    model, x = shared(), values(4, WIDTH)
    four = "weight_only w=int4/asym/per_group=32/rtn level=0"
    eight = "weight_only w=int8/sym/per_channel/rtn level=0"
    candidate = build(backend_of(model), MatMul0=four, MatMul1=eight, MatMul2="fp32")
    weight = constant(model, "w")
    second, third = candidate.run({"x": x})
    first = x @ dequantized(weight.T, four).T
    np.testing.assert_allclose(
        second, first @ dequantized(weight.T, eight).T, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(third, x @ weight, rtol=1e-4, atol=1e-4)
    assert "w" in {t.name for t in candidate.proto.graph.initializer}
    everything = build(backend_of(model), MatMul0=four, MatMul1=four, MatMul2=four)
    assert "w" not in {t.name for t in everything.proto.graph.initializer}
    # One copy for the three of them.
    assert everything.nbytes < WIDTH * WIDTH


def test_a_saved_model_loads_and_has_the_size_that_was_told(tmp_path: Path) -> None:
    model = matmul(columns=512)
    candidate = build(
        backend_of(model), MatMul0="weight_only w=int4/asym/per_group=32/rtn level=4"
    )
    path = tmp_path / "model.onnx"
    candidate.save(path)
    assert path.stat().st_size == candidate.nbytes
    # Half a byte a value, and for each 32 of them a scale of 4 bytes and a zero point of half one
    # (the 3 of a column are padded to whole bytes).
    assert 0 < candidate.nbytes - 512 * (WIDTH // 2 + 3 * 4 + 2) < 1000
    saved = onnx.load(path)
    assert "com.microsoft" in {entry.domain for entry in saved.opset_import}
    x = values(3, WIDTH)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], candidate.run({"x": x})[0])


def test_what_runs_is_told_and_other_ops_stay_in_floats() -> None:
    backend = backend_of(shared())
    label = "weight_only w=int4/asym/per_group=32/rtn level={}"
    ops = {"MatMul0": label.format(4), "MatMul1": label.format(0), "MatMul2": "fp32"}
    config = QuantConfig({name: OpConfig.from_label(text) for name, text in ops.items()})
    runs = backend.executed(config)
    assert [(runs[op].kernel, runs[op].integer) for op in ops] == [
        ("MatMulNBits", True),
        ("MatMulNBits", False),
        ("MatMul", False),
    ]


def test_static_and_weight_only_ops_stand_beside_each_other() -> None:
    model, x = shared(), values(32, WIDTH)
    backend = OnnxRuntimeBackend(model, approach="auto", calibration_data={"x": x})
    static = next(
        o for o in backend.tuning_space().tunables[0].options if o.mode == "static"
    ).label
    four = "weight_only w=int4/asym/per_group=32/rtn level=0"
    candidate = build(backend, MatMul0=four, MatMul1=static, MatMul2="fp32")
    weight = constant(model, "w")
    second, _ = candidate.run({"x": x})
    expected = x @ dequantized(weight.T, four).T @ weight
    assert np.abs(second - expected).mean() < 0.05 * np.abs(expected).mean()


# What is offered.


def labels(backend: OnnxRuntimeBackend, **wishes: Any) -> list[str]:
    return [o.label for o in backend.tuning_space(**wishes).tunables[0].options]


def test_few_options_by_default_and_none_that_is_known_to_be_slow() -> None:
    found = labels(backend_of(matmul()))
    assert found[0] == "weight_only w=int4/asym/per_group=32/rtn level=4"
    assert "weight_only w=int4/asym/per_group=32/rtn level=0" in found
    assert "weight_only w=int8/asym/per_group=32/rtn level=4" in found
    assert found[-1] == "fp32"
    assert len(found) == 4  # Without data neither gptq nor awq.
    assert not any("int8" in label and "level=0" in label for label in found)


@pytest.mark.parametrize(
    ("wish", "label"),
    [
        ({"weight": {"bits": [2]}}, "weight_only w=int2/asym/per_group=32/rtn level=4"),
        ({"weight": {"scheme": ["sym"]}}, "weight_only w=int4/sym/per_group=32/rtn level=4"),
        ({"weight": {"group_size": [64]}}, "weight_only w=int8/asym/per_group=64/rtn level=4"),
        ({"weight": {"group_size": -1}}, "weight_only w=int4/asym/per_channel/rtn level=4"),
        ({"weight": {"group_size": [-1, 64]}}, "weight_only w=int4/asym/per_channel/rtn level=4"),
        (
            {"weight": {"bits": [8]}, "accuracy_level": [0]},
            "weight_only w=int8/asym/per_group=32/rtn level=0",
        ),
        (
            {"weight": {"granularity": ["per_channel"]}},
            "weight_only w=int4/asym/per_channel/rtn level=4",
        ),
        (
            {"weight": {"algorithm": ["hqq_float"]}},
            "weight_only w=int4/asym/per_group=32/hqq_float level=0",
        ),
    ],
)
def test_others_on_request(wish: dict[str, Any], label: str) -> None:
    backend = backend_of(matmul())
    assert label not in labels(backend)
    assert label in labels(backend, op_type_dict={"MatMul": wish})


def test_the_group_size_of_minus_one_is_a_scale_per_channel() -> None:
    backend = backend_of(matmul())
    found = labels(backend, op_type_dict={"MatMul": {"weight": {"group_size": -1}}})
    assert found[-1] == "fp32"
    assert all("/per_channel/" in label for label in found[:-1])
    both = labels(backend, op_type_dict={"MatMul": {"weight": {"group_size": [-1, 32]}}})
    assert {label.split("/")[2] for label in both[:-1]} == {"per_channel", "per_group=32"}


def test_beside_static_and_dynamic_ones_only_if_the_mode_is_named() -> None:
    backend = OnnxRuntimeBackend(
        matmul(), approach="auto", calibration_data={"x": values(8, WIDTH)}
    )
    assert not any("weight_only" in label for label in labels(backend))
    asked = labels(backend, op_type_dict={"MatMul": {"mode": ["static", "weight_only"]}})
    assert asked[0].startswith("static")
    assert "weight_only w=int4/asym/per_group=32/rtn level=4" in asked
    assert not any(label.startswith("dynamic") for label in asked)


def test_beside_others_4_bits_are_asked_for_by_their_number() -> None:
    backend = OnnxRuntimeBackend(
        matmul(), approach="auto", calibration_data={"x": values(8, WIDTH)}
    )
    asked = labels(backend, op_type_dict={".*": {"weight": {"bits": [8, 4]}}})
    assert asked[0].startswith("static")
    assert "weight_only w=int4/asym/per_group=32/rtn level=4" in asked
    # Weights of 8 bits alone are not meant: other modes have them.
    assert not any(label.startswith("weight_only w=int8") for label in asked)
    assert not any("level=0" in label and "int2" in label for label in asked)
    eight = labels(backend, op_type_dict={".*": {"weight": {"bits": [8]}}})
    assert not any("weight_only" in label for label in eight)


def test_every_option_on_request_can_be_built() -> None:
    backend = backend_of(matmul())
    (op,) = backend.capability().ops
    assert op.on_request
    for each in op.on_request:
        if each.option.weight is not None and each.option.weight.algorithm == "rtn":
            (result,) = build(backend, MatMul0=each.option.label).run({"x": values(1, WIDTH)})
            assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("weight_only w=int16/asym/per_group=32/rtn level=4", "int2, int4 or int8"),
        ("weight_only w=int4/asym/per_group=48/rtn level=4", "sizes of groups"),
        ("weight_only w=int4/asym/per_tensor/rtn level=4", "per_group or per_channel"),
        ("weight_only w=int4/asym/per_group=32/minmax level=4", "the algorithms are"),
        ("weight_only w=int4/asym/per_group=32/rtn level=2", "the accuracy levels are"),
        ("weight_only w=int4/asym/per_group=32/hqq_float level=4", "computes in floats"),
        ("weight_only w=int4/sym/per_group=32/hqq_float level=0", "asymmetric weights"),
        ("weight_only w=int8/asym/per_group=32/hqq_float level=0", "2 or 4 bits alone"),
        ("weight_only w=int2/asym/per_group=16/rtn level=4", "with 2 bits"),
    ],
)
def test_what_the_kernel_does_not_take_is_refused(label: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(backend_of(matmul()), MatMul0=label)


def test_what_is_left_out_has_a_reason() -> None:
    b = Maker()
    x = b.input("x", ["n", 4, WIDTH])
    stacked = b.node("MatMul", [x, b.weight(4, WIDTH, WIDTH)])
    model = b.model([b.node("MatMul", [stacked, b.weight(WIDTH, COLUMNS)])])
    backend = backend_of(model)
    assert [t.name for t in backend.tuning_space().tunables] == ["MatMul1"]
    (row,) = backend.left_out().to_dict("records")
    assert row["op"] == "MatMul0"
    assert "takes matrices" in row["reason"]


def test_costs_know_sizes_and_bit_operations() -> None:
    backend = backend_of(matmul(columns=512), calibration_data={"x": values(4, WIDTH)})
    space = backend.tuning_space()
    costs = backend.counted_costs(space)
    for option in space.tunables[0].options:
        config = QuantConfig({"MatMul0": option})
        nbytes = backend.quantize(config).nbytes
        assert costs.tables["size"].cost(config) == pytest.approx(nbytes, rel=0.02)
    operations = costs.tables["bit_operations"]
    four = OpConfig.from_label("weight_only w=int4/asym/per_group=32/rtn level=4")
    assert operations.cost(QuantConfig({"MatMul0": four})) == WIDTH * 512 * 8 * 4


# Algorithms that look at inputs.


def batches() -> list[dict[str, NDArray[np.float32]]]:
    """Batches of different lengths, of inputs whose columns differ much in size."""
    size = np.exp(values(WIDTH, seed=9))
    return [{"x": values(n, WIDTH, seed=n) * size} for n in (7, 64, 29)]


def test_options_of_an_algorithm_are_on_request() -> None:
    backend = backend_of(matmul(), calibration_data=batches())
    names = ["gptq", "gptq_mse", "gptq_act_mse"]
    label = "weight_only w=int4/asym/per_group=32/{} level=4"
    assert [label.format(name) in labels(backend) for name in names] == [True, False, False]
    wish = {"MatMul": {"weight": {"algorithm": names, "group_size": [32], "bits": [4]}}}
    assert labels(backend, op_type_dict=wish)[:-1] == [label.format(name) for name in names]


@pytest.mark.parametrize("algorithm", ["gptq", "awq", "gptq_act_mse"])
def test_algorithms_with_inputs_see_all_batches(algorithm: str) -> None:
    model = matmul()
    backend = backend_of(model, calibration_data=batches())
    weight, x = constant(model, "w"), np.concatenate([b["x"] for b in batches()])
    moments = InputMoments(WIDTH)
    moments.add(x)
    label = f"weight_only w=int4/asym/per_group=32/{algorithm} level=0"
    (result,) = build(backend, MatMul0=label).run({"x": x})
    expected = quantize_grouped(
        weight.T, bits=4, group_size=32, scheme="asym", algorithm=algorithm, moments=moments
    ).effective()
    np.testing.assert_allclose(result, x @ expected.T, rtol=1e-3, atol=1e-2)
    (nearest,) = build(backend, MatMul0=label.replace(algorithm, "rtn")).run({"x": x})
    assert np.square(result - x @ weight).sum() < np.square(nearest - x @ weight).sum()


def test_without_data_they_are_refused_and_inputs_without_a_meaning_leave_the_op() -> None:
    label = "weight_only w=int4/asym/per_group=32/gptq level=4"
    with pytest.raises(ValueError, match="needs calibration_data"):
        build(backend_of(matmul()), MatMul0=label)
    broken = [{"x": np.full((4, WIDTH), np.nan, np.float32)}]
    backend = backend_of(matmul(), calibration_data=broken)
    config = QuantConfig({"MatMul0": OpConfig.from_label(label)})
    assert backend.fingerprint(config) == backend.fingerprint(QuantConfig({}))


def test_expensive_weights_are_kept_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = QuantConfig(
        {"MatMul0": OpConfig.from_label("weight_only w=int4/asym/per_group=32/gptq level=4")}
    )
    first = backend_of(matmul(), calibration_data=batches(), cache_dir=tmp_path)
    fingerprint = first.fingerprint(config)
    assert [path.suffix for path in tmp_path.glob("weight-*")] == [".npz"]

    def never(*args: object, **options: object) -> None:
        raise AssertionError("quantized again")

    monkeypatch.setattr(weights, "quantize_grouped", never)
    again = backend_of(matmul(), calibration_data=batches(), cache_dir=tmp_path)
    assert again.fingerprint(config) == fingerprint
    other = backend_of(matmul(), calibration_data=batches()[:2], cache_dir=tmp_path)
    with pytest.raises(AssertionError, match="quantized again"):
        other.fingerprint(config)


def test_another_version_of_an_algorithm_takes_no_kept_weight_and_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = QuantConfig(
        {"MatMul0": OpConfig.from_label("weight_only w=int4/asym/per_group=32/hqq level=4")}
    )
    first = backend_of(matmul(), cache_dir=tmp_path)
    first.quantize(config)
    before = first.signature()
    newer = {name: version + 1 for name, version in weights.ALGORITHM_VERSIONS.items()}
    for module in (weights, signature):
        monkeypatch.setattr(module, "ALGORITHM_VERSIONS", newer)
    again = backend_of(matmul(), cache_dir=tmp_path)
    again.quantize(config)
    assert len(list(tmp_path.glob("weight-*"))) == 2
    assert {name for name, text in again.signature().items() if text != before[name]} == {
        "options"
    }


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (
            {"group_size": [1024]},
            "1024 is not available and is ignored; available: 16, 32, 64, 128, 256, or "
            "-1 (granularity 'per_channel').",
        ),
        ({"bits": [16]}, "16 is not available and is ignored; available: 2, 4, 8."),
        (
            {"algorithm": ["mse"]},
            "'mse' is not available and is ignored; available: rtn, hqq, k_quant, hqq_float.",
        ),
        (
            {"algorithm": ["gptq"]},
            "'gptq' is not available without calibration_data and is ignored; available: rtn, ",
        ),
    ],
)
def test_warnings_name_what_is_on_request(wish: dict[str, object], words: str) -> None:
    m = Maker()
    model = m.model([m.node("MatMul", [m.input("x", ["N", 512]), m.weight(512, 4)])])
    backend = OnnxRuntimeBackend(model, approach="weight_only")
    with pytest.warns(UserWarning) as caught:
        backend.tuning_space(op_type_dict={"MatMul": {"weight": wish}})
    (message,) = (str(each.message) for each in caught)
    assert words in message
