"""A tensor without a range keeps those ops in FP32 that need it, and no others."""

from __future__ import annotations

from collections.abc import Callable
import logging
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import QuantConfig


Feed = dict[str, NDArray[Any]]
Case = tuple[onnx.ModelProto, Feed, Feed]
"""A model, calibration data, and data of its use."""

BOOL = onnx.TensorProto.BOOL


def projections(m: Maker, x: str) -> tuple[str, str]:
    query = m.node("MatMul", [x, m.weight(8, 8)], name="query")
    key = m.node("MatMul", [x, m.weight(8, 8)], name="key")
    scores = m.node("MatMul", [query, m.node("Transpose", [key], perm=[0, 2, 1])], name="scores")
    return scores, m.node("MatMul", [x, m.weight(8, 8)], name="value")


def attended(m: Maker, scores: str, value: str) -> str:
    weights = m.node("Softmax", [scores], name="softmax", axis=-1)
    mixed = m.node("MatMul", [weights, value], name="mixed")
    return m.node("MatMul", [mixed, m.weight(8, 4)], name="out")


def mask(n: int) -> NDArray[np.bool_]:
    kept = np.random.default_rng(3).random((n, 1, 6)) > 0.3
    kept[:, :, 0] = True
    return kept


def where_mask(least: float) -> Case:
    m = Maker()
    x, keep = m.input("x", ["N", 6, 8]), m.input("keep", ["N", 1, 6], BOOL)
    scores, value = projections(m, x)
    masked = m.node("Where", [keep, scores, m.const(np.float32(least))], name="where")
    data = {"x": samples(16, 6, 8), "keep": mask(16)}
    return m.model([attended(m, masked, value)]), data, data


def added_mask(least: float, given: float | None = None) -> Case:
    """As exported with an additive mask, with another in use than in calibration."""
    m = Maker()
    x, added = m.input("x", ["N", 6, 8]), m.input("added", ["N", 1, 6])
    scores, value = projections(m, x)
    masked = m.node("Add", [scores, added], name="add")
    kept = mask(16)
    data, use = (
        {"x": samples(16, 6, 8), "added": np.where(kept, 0.0, low).astype(np.float32)}
        for low in (least, least if given is None else given)
    )
    return m.model([attended(m, masked, value)]), data, use


def detections(keep: bool) -> Case:
    """What is kept depends on the data, and there may be nothing."""
    m = Maker()
    x, kept = m.input("x", ["N", 8]), m.input("kept", ["N"], BOOL)
    boxes = m.node("MatMul", [x, m.weight(8, 8, scale=0.1)], name="boxes")
    chosen = m.node("Compress", [boxes, kept], axis=0)
    head = m.node("MatMul", [m.node("Neg", [chosen]), m.weight(8, 4)], name="head")
    data = {"x": samples(16, 8), "kept": np.full(16, keep)}
    return m.model([head, boxes]), data, data | {"kept": np.ones(16, bool)}


def not_a_number() -> Case:
    """A branch that divides by zero, and one that does not."""
    m = Maker()
    x = m.input("x", ["N", 8])
    good = m.node("MatMul", [x, m.weight(8, 4)], name="good")
    bad = m.node("Div", [x, m.node("Sub", [x, x])])
    bad = m.node("MatMul", [bad, m.weight(8, 4)], name="bad")
    data = {"x": samples(16, 8)}
    return m.model([good, bad]), data, data


def tiny() -> Case:
    m = Maker()
    x = m.input("x", ["N", 8])
    good = m.node("MatMul", [x, m.weight(8, 4)], name="good")
    small = m.node("Mul", [x, m.const(np.float32(1e-38))], name="small")
    small = m.node("MatMul", [small, m.weight(8, 4)], name="bad")
    data = {"x": samples(16, 8)}
    return m.model([good, small]), data, data


CASES: dict[str, tuple[Callable[[], Case], set[str], str]] = {
    "where, -inf": (lambda: where_mask(-np.inf), {"softmax"}, "infinite"),
    "where, least": (lambda: where_mask(-3.4028235e38), {"softmax"}, "stand for infinity"),
    "add, -inf": (lambda: added_mask(-np.inf), {"add", "softmax"}, "infinite"),
    "add, never masked": (lambda: added_mask(0.0, -1e4), {"add"}, "'added' is zero"),
    "empty": (lambda: detections(keep=False), {"head"}, "is empty"),
    "nan": (not_a_number, {"bad"}, r"NaN .* Seen in calibration sample 0\."),
    "tiny": (tiny, {"small", "bad"}, "is zero"),
}


# An op is told of the op that its tensor comes out of, by a name that users know.
MADE_BY = {
    ("where, -inf", "softmax"): r"infinite.*such as -1e4.* It comes out of the Where 'where'\.",
    ("where, least", "softmax"): r"such as -1e4, has one\. It comes out of the Where 'where'\.",
}


def made(case: Case, op_types: Any = "all") -> tuple[OnnxRuntimeBackend, QuantConfig]:
    model, data, _ = case
    backend = OnnxRuntimeBackend(
        model, calibration_data=data, approach="static", session_options=exact_options()
    )
    return backend, backend.tuning_space(op_types=op_types).default()


def close(backend: OnnxRuntimeBackend, config: QuantConfig, case: Case) -> None:
    model, _, use = case
    got = backend.quantize(config).run(use)
    for actual, exact in zip(got, run(model, use), strict=True):
        finite = np.isfinite(exact)
        np.testing.assert_array_equal(np.isfinite(actual), finite)
        largest = np.abs(exact, where=finite, out=np.zeros_like(exact)).max()
        error = np.abs(actual - exact, where=finite, out=np.zeros_like(exact))
        assert error.max() <= 0.08 * largest


@pytest.mark.parametrize("name", CASES)
def test_only_the_ops_around_the_tensor_stay_in_fp32(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, left_out, message = CASES[name]
    case = make()
    backend, config = made(case)
    with caplog.at_level(logging.WARNING, "optuna"):
        close(backend, config, case)
        backend.quantize(config)
    # One line, and never again, however many ops there are.
    (said,) = (r.getMessage() for r in caplog.records if "in FP32 although" in r.getMessage())
    assert all(op in said for op in left_out)
    assert re.search(message, said)
    assert backend.missing_ranges().keys() == left_out
    executed = backend.executed(config)
    floats = {op for op in config.ops if not executed[op].integer}
    assert left_out <= floats
    for op in left_out:
        assert re.search(MADE_BY.get((name, op), message), executed[op].note)
    matmuls = {op for op in config.ops if op not in left_out}
    assert not floats & matmuls


def test_measuring_costs_tells_it_once_whatever_it_builds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, data, _ = where_mask(-np.inf)
    backend = OnnxRuntimeBackend(model, calibration_data=data, approach="static", recipes="all")
    space = backend.tuning_space(op_types="all")
    assert any(len(values) > 1 for values in space.recipes.values())
    with caplog.at_level(logging.WARNING, "optuna_quant"):
        backend.costs(space)  # With models that are calibrated on one sample for it.
        backend.quantize(space.default())
    said = [r.getMessage() for r in caplog.records if "in FP32 although" in r.getMessage()]
    assert len(said) == 1
    assert "samples 0 to 0" not in said[0]


@pytest.mark.parametrize("name", CASES)
def test_every_op_alone(name: str) -> None:
    make, left_out, _ = CASES[name]
    case = make()
    backend, config = made(case)
    fp32 = backend.fingerprint(QuantConfig({}))
    for op in config.ops:
        alone = config.with_fallback(*(other for other in config.ops if other != op))
        close(backend, alone, case)
        assert (backend.fingerprint(alone) == fp32) == (op in left_out)


def test_sensitivities_of_ops_that_stay_in_fp32_are_zero() -> None:
    backend, config = made(added_mask(-np.inf))
    ops = ["query", "add", "softmax"]
    for sensitivity in (backend.mse_sensitivity(), backend.output_sensitivity()):
        scores = sensitivity(config, ops)
        assert scores["query"] != 0
        alone = config.with_fallback(*(other for other in config.ops if other != "softmax"))
        assert sensitivity(alone, ["softmax"]) == {"softmax": 0.0}


def test_what_calibration_sees_decides() -> None:
    case = detections(keep=True)
    backend, config = made(case)
    close(backend, config, case)
    assert all(op.integer for op in backend.executed(config).values())


def test_sizes_have_ranges_of_their_own() -> None:
    m = Maker()
    y = m.node("MatMul", [m.input("x", ["N", 4]), m.weight(4, 4)])
    x = samples(8, 4)
    x[6] = np.inf
    backend = OnnxRuntimeBackend(
        m.model([y]), calibration_data=x, calibration_sizes=[4, 8], calibration_batch_size=4
    )
    space = backend.tuning_space()
    good = space.default()
    assert good.calibration_size == 4
    assert all(op.integer for op in backend.executed(good).values())
    bad = QuantConfig(good.ops, calibration_size=8)
    with pytest.raises(
        ValueError, match=r"^Tensor 'x' holds 0 NaN and 4 infinite.* None of the 1 "
    ):
        backend.quantize(bad)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "'x' holds 32 NaN"), (0.0, "'x' is zero in all")]
)
def test_data_that_give_nothing_a_range_are_an_error(value: float, message: str) -> None:
    m = Maker()
    h = m.node("Relu", [m.node("MatMul", [m.input("x", ["N", 4]), m.weight(4, 4)])])
    y = m.node("MatMul", [h, m.weight(4, 4)])
    data = np.full((8, 4), value, np.float32)
    for use in ("calibrate", "quantize"):
        backend = OnnxRuntimeBackend(m.model([y]), calibration_data=data, approach="static")
        config = backend.tuning_space().default()
        with pytest.raises(ValueError, match=f"{message}.* None of the 2 .*Check the calibration"):
            backend.calibrate() if use == "calibrate" else backend.quantize(config)


def test_other_processes_learn_what_has_no_range() -> None:
    case = where_mask(-np.inf)
    first, config = made(case)
    second, _ = made(case)
    second.import_calibration(first.export_calibration())
    assert second.is_calibrated()
    assert first.fingerprint(config) == second.fingerprint(config)
    close(second, config, case)
