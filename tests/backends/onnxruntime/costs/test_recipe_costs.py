"""What recipes cost, against what they insert and against models that are built."""

from __future__ import annotations

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import samples
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.costs import recipes as recipe_costs
from optuna_quant.costs.timing import Timing


DATA = samples(24, 5, 12) * np.geomspace(1, 30, 12, dtype=np.float32)


def products(*, folds: bool) -> onnx.ModelProto:
    """A product behind a layer that takes factors in, or behind a function that does not."""
    m = Maker(seed=3)
    h = m.node("Mul", [m.input("x", ["N", 5, 12]), m.const(np.ones(12, np.float32))])
    if not folds:
        h = m.node("Sigmoid", [h])
    return m.model([m.node("MatMul", [h, m.weight(12, 16)])])


def backend_of(folds: bool = False, **options: object) -> OnnxRuntimeBackend:
    recipes = {
        "smooth_quant": ["off", "alpha=0.5", "alpha=0.75"],
        "weight_correction": [False, True],
    }
    options = {"recipes": recipes, **options}
    model, session_options = products(folds=folds), exact_options()
    return OnnxRuntimeBackend(
        model, calibration_data={"x": DATA}, session_options=session_options, **options
    )


def test_a_mul_that_folds_nowhere_is_counted() -> None:
    backend = backend_of()
    space = backend.tuning_space()
    costs = backend.counted_costs(space)
    added = 5 * 12  # The values of one sample that are multiplied.
    for measure, each in (("multiply_adds", 1), ("bit_operations", 32 * 32)):
        table = costs.table(measure)
        assert table.recipes == {
            "smooth_quant": dict.fromkeys(space.recipes["smooth_quant"][1:], each * added)
        }
        config = space.default().with_recipe("smooth_quant", "alpha=0.5")
        assert table.cost(config) == table.cost(space.default()) + each * added
        floats = space.fp32().with_recipe("smooth_quant", "alpha=0.5")
        assert table.cost(floats) == table.cost(space.fp32())


def test_the_size_is_that_of_the_model_that_is_built() -> None:
    backend = backend_of()
    space = backend.tuning_space()
    table = backend.counted_costs(space).table("size")
    sizes = [
        backend.quantize(config).nbytes
        for config in (space.default(), space.default().with_recipe("smooth_quant", "alpha=0.5"))
    ]
    assert table.recipes["smooth_quant"]["alpha=0.5"] == sizes[1] - sizes[0] > 12 * 4
    assert "weight_correction" not in table.recipes


def test_factors_that_fold_cost_nothing() -> None:
    backend = backend_of(folds=True)
    costs = backend.counted_costs(backend.tuning_space())
    assert not costs.table("bit_operations").recipes
    # But for the names of the new constants.
    assert max(costs.table("size").recipes["smooth_quant"].values()) < 40


def test_a_product_in_fp32_costs_what_it_does_in_floats() -> None:
    backend = backend_of(recipes=["first_conv_or_matmul_quantization"])
    space = backend.tuning_space()
    table = backend.counted_costs(space).table("bit_operations")
    config = space.default().with_recipe("first_conv_or_matmul_quantization", "off")
    assert table.cost(config) == table.cost(space.fp32())


def test_no_model_is_calibrated_for_it_on_all_data(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of()
    space = backend.tuning_space()
    backend.calibrate()
    seen: list[int] = []
    pieces = CalibrationData.pieces

    def counted(self: CalibrationData, sizes: object) -> object:
        for piece in pieces(self, sizes):  # type: ignore[arg-type]
            seen.append(piece.samples)
            yield piece

    monkeypatch.setattr(CalibrationData, "pieces", counted)
    backend.counted_costs(space)
    assert set(seen) == {1}


def test_times_count_where_they_differ_by_more_than_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def timed(runs: list[object], **_: object) -> list[Timing]:
        seconds = [1.0, 1.3, 1.005, 0.5]  # Without recipes, and with each value.
        return [Timing(s, 0.0, 0.001, (s,)) for s in seconds[: len(runs)]]

    monkeypatch.setattr(recipe_costs, "time_interleaved", timed)
    backend = backend_of()
    space = backend.tuning_space()
    table = backend.costs(space, seconds=0.01, checks=0).table("latency")
    assert table.recipes == {
        "smooth_quant": {"alpha=0.5": pytest.approx(0.3)},
        "weight_correction": {"on": pytest.approx(-0.5)},
    }
