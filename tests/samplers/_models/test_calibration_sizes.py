"""The number of calibration samples as a part of the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_models
import optuna
import pytest
from spaces import make_space
from spaces import objective_of

from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.trial_view import TrialView


SPACE = make_space(4, calibration_sizes=(16, 64, 256))
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)


def run(
    metric: Callable[[QuantConfig], float], space: Any = SPACE
) -> tuple[list[str], QuantConfig]:
    """Each trial of the default strategy: its stage, its size, its ops in fallback; the answer."""
    sampler = AutoQuantSampler(space, criterion=CRITERION)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(objective_of(space, metric), n_trials=1)
        assert len(study.trials) < 50
    lines = []
    for trial in study.trials:
        config = space.config_from_params(trial.params)
        stage = TrialView(trial).claim.stage
        lines.append(f"{stage}: {config.calibration_size}, {len(config.fallback_ops)}")
    good = [t for t in study.trials if sampler.is_answer(study, t) and t.value >= 0.95]
    answer = min(
        (space.config_from_params(t.params) for t in good), key=lambda c: len(c.fallback_ops)
    )
    return lines, answer


def losing(op0: float, **by_size: float) -> Callable[[QuantConfig], float]:
    """One op loses much, and each size costs something as long as anything is quantized."""

    def metric(config: QuantConfig) -> float:
        size = by_size[f"s{config.calibration_size}"] if config.quantized_ops else 0.0
        return 1.0 - size - op0 * ("op0" in config.quantized_ops)

    return metric


def test_the_best_size_is_kept_for_the_rest_of_the_search() -> None:
    lines, answer = run(losing(0.2, s16=0.1, s64=0.01, s256=0.04))
    assert lines[:4] == [
        "baseline: 16, 4",
        "cheapest to start with: 16, 0",
        "calibration size: 64, 0",
        "calibration size: 256, 0",
    ]
    assert all(line.startswith("cheapest believed to meet: 64") for line in lines[4:])
    assert (answer.calibration_size, answer.fallback_ops) == (64, ("op0",))


def test_a_size_with_which_everything_meets_is_the_answer() -> None:
    lines, answer = run(losing(0.0, s16=0.1, s64=0.01, s256=0.0))
    assert lines[2:] == ["calibration size: 64, 0"]
    assert (answer.calibration_size, answer.fallback_ops) == (64, ())


def test_no_size_is_tried_if_the_first_meets() -> None:
    lines, answer = run(losing(0.0, s16=0.01, s64=0.0, s256=0.0))
    assert lines == ["baseline: 16, 4", "cheapest to start with: 16, 0"]
    assert answer.calibration_size == 16


def test_of_equal_sizes_the_first_is_kept() -> None:
    lines, answer = run(losing(0.2, s16=0.01, s64=0.01, s256=0.01))
    assert all(line.startswith("cheapest believed to meet: 16") for line in lines[4:])
    assert (answer.calibration_size, answer.fallback_ops) == (16, ("op0",))


def test_one_size_changes_nothing() -> None:
    def metric(config: QuantConfig) -> float:
        return 1.0 - 0.2 * ("op0" in config.quantized_ops)

    single, _ = run(metric, make_space(4, calibration_sizes=(16,)))
    none, _ = run(metric, make_space(4))
    assert [line.replace("16", "None") for line in single] == none


@pytest.mark.parametrize(
    ("strategy", "kwargs"),
    [("basic", {"max_op_type_trials": 0}), ("auto", {"sensitivity": None})],
)
def test_sizes_of_a_real_model(strategy: str, kwargs: dict[str, Any]) -> None:
    """Of three sizes only the last sees the large values, without which everything is cut off."""
    x = onnx_models.samples(64, 2, 8, 8)
    x[32:] *= 20
    model = onnx_models.convnet()
    (expected,) = onnx_models.run(model, {"x": x[32:]})
    backend = OnnxRuntimeBackend(model, calibration_data={"x": x}, calibration_sizes=[8, 16, 64])

    def closeness(session: Any) -> float:
        found = session.run(None, {"x": x[32:]})[0]
        return 1.0 - float(abs(found - expected).mean() / abs(expected).mean())

    result = tune(
        backend=backend,
        evaluate=closeness,
        strategy=strategy,
        strategy_kwargs=kwargs,
        objective="ops",
        criterion="absolute",
        tolerable_loss=0.1,
        max_trials=30,
    )
    assert result.met
    assert result.config.calibration_size == 64
    assert not result.config.fallback_ops
