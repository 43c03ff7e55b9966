"""What part of an op's error comes from its weights, and what an answer says of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import exact_products
from onnx_models import residual
from onnx_models import run
from onnx_models import samples
import optuna
import pytest

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.callbacks import StopReason
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import Explanation
from optuna_quant.samplers._models.option_scores import kept_scores
from optuna_quant.study.evaluation_cost import sensitivity_passes


WIDTH, CLASSES = 32, 10
PER_TENSOR = {"MatMul": {"weight": {"granularity": ["per_tensor"]}}}
CRITERION = optuna_quant.AccuracyCriterion(tolerable_loss=0.03)


def chain(
    *, activations: Collection[int] = (), weights: Collection[int] = (), layers: int = 12
) -> onnx.ModelProto:
    """Products with a residual, ``MatMul0``, ``MatMul1``, ...: input ``x`` of (N, WIDTH).

    One channel that is read by those of ``activations`` is 100 times as large as the others, and
    one that is written by those of ``weights``; before or behind it that is undone.
    """
    m = Maker(seed=1)
    current = m.input("x", ["N", WIDTH])
    large = np.ones(WIDTH, np.float32)
    large[5] = 100.0
    for i in range(layers):
        read, weight = current, m.rng.normal(0, 1 / np.sqrt(WIDTH), (WIDTH, WIDTH))
        if i in activations:
            read, weight = m.node("Mul", [read, m.const(large)]), weight / large[:, None]
        if i in weights:
            weight = weight * large
        h = m.node("MatMul", [read, m.const(weight.astype(np.float32))])
        if i in weights:
            h = m.node("Mul", [h, m.const(1 / large)])
        current = m.node("Add", [current, m.node("Tanh", [h])])
    last = m.rng.normal(0, 1, (WIDTH, CLASSES)).astype(np.float32)
    return m.model([m.node("MatMul", [current, m.const(last)])])


def task(model: onnx.ModelProto) -> dict[str, Any]:
    """What ``tune`` takes: the model is right, but for one label in twenty."""
    x = samples(1200, WIDTH, seed=3)
    (logits,) = run(model, {"x": x})
    labels = logits.argmax(axis=1)
    rng = np.random.default_rng(4)
    wrong = rng.random(len(labels)) < 0.05
    labels[wrong] = rng.integers(0, CLASSES, wrong.sum())
    return {
        "model": model,
        "calibration_data": {"x": samples(200, WIDTH, seed=5)},
        "data": {"x": x, "labels": labels},
        "metric": "accuracy",
        "accuracy_criterion": CRITERION,
        "measure_gain": False,
    }


def tuned(given: dict[str, Any], **options: Any) -> optuna_quant.TuningResult:
    with exact_products():
        return optuna_quant.tune(
            **given,
            tuning_criterion=optuna_quant.TuningCriterion(objective="ops", **options),
        )


def explained(result: optuna_quant.TuningResult) -> Explanation:
    assert result.explanation is not None
    return result.explanation


def parts(backend: OnnxRuntimeBackend, kind: str, **options: Any) -> dict[str, float]:
    """What part of the error of each op comes from its weights."""
    space = backend.tuning_space(**options)
    config = space.default()
    make = getattr(backend, f"{kind}_sensitivity")
    _, of_weights = make(samples=64).score_with_weights([config], list(config.ops))
    return of_weights


@pytest.fixture(scope="module")
def hard_task() -> dict[str, Any]:
    """A model three of whose ops do not stand 8-bit activations, and where its study is."""
    storage = optuna.storages.InMemoryStorage()
    return task(chain(activations=[2, 5, 9])) | {"storage": storage}


@pytest.fixture(scope="module")
def hard(hard_task: dict[str, Any]) -> optuna_quant.TuningResult:
    """The result for it."""
    return tuned(hard_task)


# The parts.


@pytest.mark.parametrize("kind", ["gradient", "mse"])
def test_activations_and_weights_are_told_apart(kind):
    if kind == "gradient":
        pytest.importorskip("torch")
    model = chain(activations=[3], weights=[7])
    backend = OnnxRuntimeBackend(model, calibration_data=samples(64, WIDTH))
    found = parts(backend, kind, op_type_dict=PER_TENSOR)
    assert found["MatMul3"] < 0.1
    assert found["MatMul7"] > 0.9
    assert all(0 <= part <= 1 for part in found.values())


def test_scores_are_the_same_with_the_parts():
    pytest.importorskip("torch")
    for make in (convnet, residual, attention):
        model = make()
        (value,) = model.graph.input
        shape = [d.dim_value or 32 for d in value.type.tensor_type.shape.dim]
        backend = OnnxRuntimeBackend(model, calibration_data=samples(*shape))
        space = backend.tuning_space()
        configs, ops = [space.default(), space.fp32()], list(space.default().ops)
        for sensitivity in (
            backend.gradient_sensitivity(samples=32, probes=2),
            backend.mse_sensitivity(samples=32),
        ):
            scores, of_weights = sensitivity.score_with_weights(configs, ops)
            assert scores == sensitivity.score_options(configs, ops)
            assert of_weights
            assert set(of_weights) <= set(ops)


def test_an_op_without_weights_has_activations_only():
    m = Maker(seed=2)
    x = m.input("x", ["N", WIDTH, WIDTH])
    product = m.node("MatMul", [x, m.node("Transpose", [x], perm=[0, 2, 1])])
    model = m.model([m.node("MatMul", [product, m.weight(WIDTH, WIDTH)])])
    backend = OnnxRuntimeBackend(model, calibration_data=samples(16, WIDTH, WIDTH))
    found = parts(backend, "mse", op_types="all")
    assert found["MatMul0"] == 0.0
    assert 0 < found["MatMul1"] < 1


def test_of_a_dynamic_op_it_is_not_known():
    model = chain(layers=3)
    backend = OnnxRuntimeBackend(model, calibration_data=samples(16, WIDTH), approach="dynamic")
    config = backend.tuning_space().default()
    assert {option.mode for option in config.ops.values()} == {"dynamic"}
    assert parts(backend, "mse") == {}


def test_of_an_op_that_hardly_matters_it_is_not_looked_at():
    model = chain(activations=[1], layers=3)
    backend = OnnxRuntimeBackend(model, calibration_data=samples(64, WIDTH))
    ops = list(backend.tuning_space().default().ops)
    sensitivity = backend.mse_sensitivity(samples=64)
    (scores,), of_weights = sensitivity.score_with_weights([backend.tuning_space().default()], ops)
    least = 0.005 * sum(scores.values())
    assert set(of_weights) == {op for op, score in scores.items() if score > least}
    assert set(of_weights) < set(ops)


def test_what_they_cost_is_counted():
    model = chain(layers=3)
    backend = OnnxRuntimeBackend(model, calibration_data=samples(64, WIDTH))
    by_error = backend.mse_sensitivity(samples=20)
    assert by_error.passes(4) == 80
    assert by_error.passes(4, with_weights=True) == 80 + 3
    pytest.importorskip("torch")
    by_gradient = backend.gradient_sensitivity(samples=20, probes=2)
    assert by_gradient.passes(4) == 20 * (4 + 1 + 2)
    assert by_gradient.passes(4, with_weights=True) == (20 * (4 + 1 + 2)) + 3 * (1 + 1 + 2)


# What an answer says.


def test_ops_whose_activations_are_hard_are_named(hard):
    assert hard.met
    assert sorted(hard.fallback_ops) == ["MatMul2", "MatMul5", "MatMul9"]
    found = explained(hard)
    names = ", ".join(each.op for each in found.fallback)
    (line,) = [line for line in hard.summary().splitlines() if line.startswith("in fallback")]
    share = sum(e.error.share * (e.error.activations or 0.0) for e in found.fallback if e.error)
    assert line == (
        f"in fallback: {names}: their activations cause {100 * share:.0f}% of the error expected "
        "of plain INT8; they have no option with more than 8 bits"
    )
    assert share > 0.8


def test_ops_whose_weights_are_hard_are_named():
    result = tuned(task(chain(weights=[1, 8])) | {"op_type_dict": PER_TENSOR})
    assert result.met
    assert sorted(result.fallback_ops) == ["MatMul1", "MatMul8"]
    found = explained(result)
    names = ", ".join(each.op for each in found.fallback)
    assert str(found).startswith(f"in fallback: {names}: their weights cause ")
    assert "they have no option with more than 8 bits" in str(found)


def test_the_report_has_the_shares(hard):
    frame = hard.report().set_index("op")
    found = explained(hard)
    assert frame["error_share"].sum() == pytest.approx(1.0)
    for each in found.fallback:
        assert each.error is not None
        assert frame.loc[each.op, "error_share"] == each.error.share
        assert frame.loc[each.op, "of_activations"] == each.error.activations


def test_a_study_that_is_opened_again_says_the_same_and_scores_nothing(hard, hard_task):
    passes = sensitivity_passes(hard.study)
    again = tuned(hard_task)
    assert again.explanation == hard.explanation
    assert sensitivity_passes(again.study) == passes > 0
    assert len(kept_scores(again.study)) == 1
    sampler = AutoQuantSampler(again.space, criterion=CRITERION)
    explained = sampler.explain(hard.study, hard.config)
    # What was not searched, the sampler does not know.
    assert hard.explanation.text.startswith(f"{explained.text}\nnot searched: ")
    assert replace(explained, text=hard.explanation.text) == hard.explanation


def test_an_early_end_is_in_the_summary():
    result = tuned(task(chain(activations=[1], layers=3)), max_trials=1)
    assert result.stopped_because == StopReason.MAX_TRIALS
    assert not result.met
    assert any(line.startswith("ended ") for line in result.summary().splitlines())


def test_another_answer_from_the_record_has_no_words(hard):
    other = hard.choose(tolerable_loss=0.5)
    assert other.explanation is None
    assert "in fallback: " in other.summary() or not other.fallback_ops


def test_other_strategies_have_the_names_alone():
    result = tuned(task(chain(activations=[2], layers=3)), strategy="conservative")
    assert result.explanation is None
    assert "error_share" not in result.report()
