"""Warm starts of real models: unchanged, fine-tuned, with one more layer."""

from __future__ import annotations

from typing import Any

import pytest


pytest.importorskip("onnxruntime")

import numpy as np
import onnx
from onnx import numpy_helper
import onnx_models

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant.study.trial_view import TrialView


SAMPLES = onnx_models.samples(600, 2, 8, 8)


def net(*, longer: bool = False) -> onnx.ModelProto:
    m = onnx_models.Maker(seed=2)
    h = m.input("x", ["N", 2, 8, 8])
    for channels in (2, 8, 8):
        h = m.node("Relu", [m.conv(h, channels, 8)])
    h = m.node("Gemm", [m.node("Flatten", [h]), m.weight(32, 16), m.weight(16)])
    last = m.weight(16, 10)
    if longer:
        h = m.node("Gemm", [m.node("Relu", [h]), m.weight(16, 16)])
    return m.model([m.node("Gemm", [h, last], name="last")])


def fine_tuned(model: onnx.ModelProto) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        moved = array * (1 + 0.01 * rng.standard_normal(array.shape))
        tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return model


def tune(model: onnx.ModelProto, **kwargs: Any) -> TuningResult:
    with onnx_models.exact_products():
        return optuna_quant.tune(
            model,
            calibration_data=SAMPLES[:64],
            data={"x": kwargs.pop("x", SAMPLES)},
            metric="agreement",
            accuracy_criterion=AccuracyCriterion(tolerable_loss=0.015),
            tuning_criterion=TuningCriterion(objective="ops"),
            measure_gain=False,
            verify=False,
            **kwargs,
        )


def stages(result: TuningResult) -> list[str]:
    claims = [TrialView(trial).claim for trial in result.study.trials]
    return [claim.stage for claim in claims if claim is not None]


@pytest.fixture(scope="module")
def cold() -> TuningResult:
    found = tune(net())
    assert found.met
    assert found.full_evaluations > 2
    return found


def test_unchanged_model(cold: TuningResult) -> None:
    warm = tune(net(), from_study=cold)
    assert stages(warm) == ["baseline", "earlier answer"]
    assert warm.full_evaluations == 2
    assert warm.config == cold.config
    assert "started from study 'no-name-" in str(warm)


def test_fine_tuned_model(cold: TuningResult) -> None:
    model = fine_tuned(net())
    warm, fresh = tune(model, from_study=cold), tune(model)
    assert warm.met
    assert stages(warm)[1] == "earlier answer"
    assert len(warm.fallback_ops) <= len(fresh.fallback_ops)
    assert warm.full_evaluations <= fresh.full_evaluations


def test_other_samples(cold: TuningResult) -> None:
    other = onnx_models.samples(600, 2, 8, 8, seed=5)
    warm, fresh = tune(net(), x=other, from_study=cold), tune(net(), x=other)
    assert warm.met
    assert stages(warm)[1] == "earlier answer"
    assert len(warm.fallback_ops) <= len(fresh.fallback_ops)
    # What the earlier samples taught is tried first, and may be wrong for these.
    assert warm.full_evaluations <= fresh.full_evaluations + 1


def test_model_with_one_more_layer(cold: TuningResult) -> None:
    warm, fresh = tune(net(longer=True), from_study=cold), tune(net(longer=True))
    assert "5 of 6 ops in common" in str(warm)
    assert warm.met == fresh.met
    assert len(warm.fallback_ops) <= len(fresh.fallback_ops)


def test_costs_of_the_same_machine(cold: TuningResult) -> None:
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(net(), calibration_data=SAMPLES[:64])
    costs = backend.costs(backend.tuning_space(), seconds=0.2, checks=0)
    assert dict(costs.conditions) == dict(backend.cost_conditions())
    assert costs.table("size").cost(backend.tuning_space().fp32()) == pytest.approx(
        backend.quantize(backend.tuning_space().fp32()).nbytes, rel=1e-3
    )
