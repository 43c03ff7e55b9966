"""Strategies that score ops, and the one of the front, over weights of few bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import samples
import pytest

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


WIDTH = 64
# The values of the other weights lie on a grid of four steps.
HARD = "MatMul1"


def model() -> onnx.ModelProto:
    b = Maker()
    rng = np.random.default_rng(0)
    easy = rng.choice([-1.0, 0.0, 1.0, 2.0], (WIDTH, WIDTH)).astype(np.float32)
    hard = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    h = b.node("MatMul", [b.input("x", ["n", WIDTH]), b.const(easy)])
    h = b.node("MatMul", [b.node("Tanh", [h]), b.const(hard)])
    return b.model([b.node("MatMul", [h, b.const(easy)])])


@pytest.mark.parametrize("strategy", ["mse", "mse_v2", "pareto"])
def test_the_op_that_two_bits_spoil_is_found(strategy: str) -> None:
    x = samples(32, WIDTH)
    exact, *_ = (
        OnnxRuntimeBackend(model(), approach="dynamic").quantize(QuantConfig({})).run({"x": x})
    )

    def closeness(session: Any) -> float:
        (found,) = session.run(None, {"x": x})
        return float(1 - np.square(found - exact).sum() / np.square(exact).sum())

    result = optuna_quant.tune(
        model(),
        approach="weight_only",
        calibration_data={"x": x},
        op_type_dict={"MatMul": {"weight": {"bits": [2], "algorithm": ["rtn"]}}},
        evaluate=closeness,
        tolerable_loss=0.02,
        objective="size",
        strategy=strategy,
        max_trials=20,
        show_progress=False,
    )
    assert result.met
    assert result.config is not None
    assert result.config.fallback_ops == (HARD,)


def test_scores_of_the_error_of_outputs_see_the_algorithm() -> None:
    data = [
        {"x": samples(n, WIDTH, seed=n) * np.geomspace(0.1, 10, WIDTH, dtype=np.float32)}
        for n in (40, 70)
    ]
    backend = OnnxRuntimeBackend(model(), approach="weight_only", calibration_data=data)
    sensitivity = backend.mse_sensitivity()
    scores = {}
    for algorithm in ("rtn", "gptq", "awq"):
        label = f"weight_only w=int2/asym/per_group=32/{algorithm} level=0"
        config = QuantConfig({HARD: OpConfig.from_label(label)})
        scores[algorithm] = sensitivity(config, [HARD])[HARD]
    assert scores["gptq"] < scores["rtn"]
    assert scores["awq"] < scores["rtn"]


def test_weights_alone_are_searched_for_the_smallest_model() -> None:
    x = samples(32, WIDTH)
    given: dict[str, Any] = {
        "calibration_data": {"x": x},
        "evaluate": lambda session: 1.0,
        "show_progress": False,
        "measure_gain": False,
        "op_type_dict": {"MatMul": {"weight": {"algorithm": ["rtn"], "bits": [4]}}},
    }
    result = optuna_quant.tune(model(), approach="weight_only", **given)
    assert result.objective == "size"
    assert result.left_out == {}
    assert result.fallback_ops == ()
    # The user's own objective counts, and so do the user's own costs.
    asked = optuna_quant.tune(model(), approach="weight_only", objective="ops", **given)
    assert asked.objective == "ops"
    slow = optuna_quant.tune(
        model(), approach="weight_only", costs=lambda config: len(config.fallback_ops), **given
    )
    assert slow.objective == "latency"
