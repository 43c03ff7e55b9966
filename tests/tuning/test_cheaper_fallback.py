"""On a real model: where 8 bits are not enough, options of 16 bits keep the accuracy for less."""

from __future__ import annotations

from dataclasses import replace

from places import ROOT
import pytest

from optuna_quant import tune
from optuna_quant.backends.onnxruntime import TARGETS
from optuna_quant.backends.onnxruntime import TargetProfile
from optuna_quant.tuning.result import TuningResult


DIGITS = ROOT / "examples" / "digits"


def tuned(strategy: str, target: TargetProfile) -> TuningResult:
    return tune(
        DIGITS / "model.onnx",
        target=target,
        calibration_data=DIGITS / "calib.npz",
        data=DIGITS / "eval.npz",
        metric="accuracy",
        tolerable_loss=0.01,
        strategy=strategy,
        measure_gain=False,
        show_progress=False,
    )


# Each of the two searches takes seconds; the strategies' own tests have models that take none.
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["conservative", "mse", "mse_v2"])
def test_float16_costs_less_than_fp32(strategy: str) -> None:
    target = TARGETS["openvino-gpu"]
    fp32 = tuned(strategy, replace(target, fallbacks=("fp32",)))
    found = tuned(strategy, target)
    assert fp32.met and found.met
    assert {option.mode for option in found.config.ops.values()} == {"static", "fp16"}
    # The same ops need more than 8 bits: their products cost a quarter.
    assert found.config.fallback_ops == fp32.config.fallback_ops
    assert found.cost < fp32.cost
    assert len(found.study.trials) <= len(fp32.study.trials) + 2
