"""Searches in which corrections, the ends of the model, and the level are recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import samples
import onnxruntime as ort

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.study.trial_view import TrialView


DIGITS = Path(__file__).parents[4] / "examples" / "digits"
DATA = samples(256, 24) * 0.2 + np.linspace(0.5, 1.5, 24, dtype=np.float32)


def tuned(recipes: Any, tolerable_loss: float, **options: Any) -> TuningResult:
    """A search over two layers with weights per tensor, whose outputs' mean is what counts."""
    m = Maker(seed=5)
    h = m.node("Relu", [m.node("Gemm", [m.input("x", ["N", 24]), m.weight(24, 32), m.weight(32)])])
    model = m.model([m.node("Gemm", [h, m.weight(32, 6), m.weight(6)])])
    session = ort.InferenceSession(model.SerializeToString(), exact_options())
    exact = session.run(None, {"x": DATA})[0].mean(0)

    def score(candidate: ort.InferenceSession) -> float:
        return -float(np.abs(candidate.run(None, {"x": DATA})[0].mean(0) - exact).mean())

    return tune(
        model,
        evaluate=score,
        calibration_data=DATA,
        op_type_dict={".*": {"weight": {"granularity": ["per_tensor"]}}},
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=tolerable_loss),
        measure_gain=False,
        recipes=recipes,
        **{"strategy": "basic", "objective": "ops", **options},
    )


def test_basic_finds_the_corrections_that_a_model_needs() -> None:
    names = ["weight_correction", "fast_bias_correction"]
    result = tuned(names, 0.004)
    assert result.met
    assert result.config is not None
    assert not result.config.fallback_ops
    assert result.config.recipes == dict.fromkeys(names, "on")
    # Without them nothing is near: that was tried first, in the order of the strategy.
    others = [trial for trial in result.study.trials[1:-1] if trial.value is not None]
    assert max(trial.value for trial in others) < -0.02  # type: ignore[type-var]
    assert {trial.params["quant.recipe:weight_correction"] for trial in others} == {"off"}


def test_the_default_strategy_takes_corrections_together() -> None:
    names = ["weight_correction", "fast_bias_correction"]
    with np.load(DIGITS / "eval.npz") as data:
        samples_of = {"x": data["x"], "labels": data["labels" if "labels" in data else "y"]}
    result = tune(
        DIGITS / "model.onnx",
        calibration_data=DIGITS / "calib.npz",
        data=samples_of,
        tolerable_loss=0.05,
        objective="bit_operations",
        measure_gain=False,
        recipes=names,
    )
    assert result.met
    assert result.config is not None
    assert not result.config.fallback_ops
    assert result.config.recipes == dict.fromkeys(names, "on")
    stages = {TrialView(trial).stage for trial in result.study.trials}
    assert stages == {"baseline", "cheapest to start with", "cheapest with recipes"}


def test_fixed_recipes_hold_for_all_candidates() -> None:
    recipes = {
        "fast_bias_correction": True,
        "first_conv_or_matmul_quantization": False,
        "graph_optimization_level": "enable_extended",
    }
    result = tuned(recipes, 0.004)
    assert result.met
    assert result.config is not None
    assert result.config.recipes == {
        "fast_bias_correction": "on",
        "first_conv_or_matmul_quantization": "off",
        "graph_optimization_level": "enable_extended",
    }
    assert result.config.fallback_ops == ("Gemm0",)
    assert {name for trial in result.study.trials for name in trial.params} == {"quant.op:Gemm1"}
    level = result.model().session.get_session_options().graph_optimization_level
    assert level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
