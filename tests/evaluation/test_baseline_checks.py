"""Data that make no sense: an error where they cannot be right, one warning where that is open."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx_models
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import DataEvaluation
from optuna_quant import SampleMetric
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.evaluation.baseline_checks import BaselineChecks
from optuna_quant.evaluation.data_checks import SeenInputs
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.evaluation.metrics.sample_metrics import exact_match
from optuna_quant.evaluation.metrics.sample_metrics import topk
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.errors import BaselineError


RNG = np.random.default_rng(0)
SEED = 2


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(SEED).bit_generator.state


def pass_of(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    metric: Any = "accuracy",
    x: np.ndarray | None = None,
    batch: int = 16,
) -> None:
    """What the checks say of a pass of the FP32 model with these outputs."""
    inputs = np.zeros((len(scores), 2), np.float32) if x is None else x
    checks = BaselineChecks(as_metric_of(metric), samples=len(scores), where="the data 'x.npz'")
    for start in range(0, len(scores), batch):
        chosen = np.arange(start, min(start + batch, len(scores)))
        checks.see_inputs({"x": inputs[chosen]}, chosen)
        checks.see_outputs(scores[chosen], labels[chosen], chosen)


def scores_of(classes: np.ndarray, count: int, *, right: float = 1.0) -> np.ndarray:
    """Scores of which so many are highest at these classes."""
    off = RNG.random(len(classes)) >= right
    predicted = np.where(off, RNG.integers(0, count, len(classes)), classes)
    return np.asarray(np.eye(count)[predicted] + 0.1 * RNG.random((len(classes), count)))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


CLASSES = RNG.integers(0, 10, 300)


# Labels.


@pytest.mark.parametrize("metric", ["accuracy", "top3", "exact_match", "f1_macro", "log_loss"])
def test_a_label_that_is_no_class_is_an_error(metric: str) -> None:
    labels = CLASSES.copy()
    labels[37] = 12
    with pytest.raises(
        ValueError,
        match="^The label 12 of sample 37 of the data 'x.npz' is not a cl.*"
        "which has 10: labels must be from 0 to 9. Number the classes like",
    ):
        pass_of(scores_of(CLASSES, 10), labels, metric=metric)  # fmt: skip
    labels[37] = -1
    with pytest.raises(ValueError, match="The label -1 of sample 37"):
        pass_of(scores_of(CLASSES, 10), labels, metric=metric)
    with pytest.raises(ValueError, match="The label 0.5 of sample 0"):
        pass_of(scores_of(CLASSES, 10), np.full(300, 0.5), metric=metric)
    with pytest.raises(ValueError, match="The label of sample 3 of the data 'x.npz' is NaN"):
        pass_of(scores_of(CLASSES, 10), np.where(np.arange(300) == 3, np.nan, 1.0), metric=metric)


def test_labels_from_one_are_recognized(caplog: pytest.LogCaptureFixture) -> None:
    scores = scores_of(CLASSES, 10, right=0.9)
    with pytest.raises(ValueError, match="They seem to be numbered from 1: subtract 1 from each"):
        pass_of(scores, CLASSES + 1, batch=300)
    # The model may have one class more than there are labels.
    background = scores_of(CLASSES + 1, 11, right=0.9)
    with pytest.raises(
        ValueError,
        match=r"no better than chance .*With 1 added to each label it "
        r"would be right for 9\d",
    ):
        pass_of(background, CLASSES)  # fmt: skip
    with pytest.raises(ValueError, match="With 1 taken off each label"):
        pass_of(scores_of(CLASSES, 12, right=0.9), CLASSES + 1)
    assert warnings_in(caplog) == []


def test_labels_of_positions_may_mark_none(caplog: pytest.LogCaptureFixture) -> None:
    scores = np.eye(4)[RNG.integers(0, 4, (60, 5))]
    labels = scores.argmax(-1)
    labels[8, 3] = -100
    for metric in ("accuracy", "iou"):
        with pytest.raises(ValueError, match="label -100 of sample 8.*SampleMetric of your own"):
            pass_of(scores, labels, metric=metric)
    pass_of(scores, labels, metric=SampleMetric(name="own", score=lambda o, t: accuracy(o, t)))
    assert warnings_in(caplog) == []


def test_labels_in_another_order_are_asked_about(caplog: pytest.LogCaptureFixture) -> None:
    scores = scores_of(CLASSES, 10)
    pass_of(scores, RNG.permutation(CLASSES))
    (said,) = warnings_in(caplog)
    assert "% of the data 'x.npz', which is no better than chance (1" in said
    assert "with 10 classes): are the labels in the order of the samples, and numbered" in said


def test_swapped_classes_are_recognized(caplog: pytest.LogCaptureFixture) -> None:
    labels = RNG.integers(0, 2, 400)
    pass_of(scores_of(labels, 2, right=0.8), 1 - labels)
    (said,) = warnings_in(caplog)
    assert "is less than by chance (" in said
    assert "With the two classes swapped it would be right for " in said


def test_few_samples_cannot_tell_a_model_from_chance(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.array([0, 1, 0, 1, 1])
    pass_of(np.eye(2)[[0, 1, 0, 0, 0]], labels)  # Three are right.
    (said,) = warnings_in(caplog)
    assert "right for 60% of the data 'x.npz', which cannot be told from chance (" in said
    assert "with 5 samples: are the labels" in said


def test_chance_is_more_where_a_class_is_frequent(caplog: pytest.LogCaptureFixture) -> None:
    labels = (RNG.random(400) < 0.1).astype(int)
    scores = scores_of(labels, 2)
    pass_of(scores, labels)
    assert warnings_in(caplog) == []
    pass_of(scores, RNG.permutation(labels))  # Right for some 82%.
    assert len(warnings_in(caplog)) == 1


@pytest.mark.parametrize("right", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("classes", "samples"), [(2, 300), (10, 100), (1000, 200)])
def test_a_model_that_has_learned_something_is_not_asked_about(
    caplog: pytest.LogCaptureFixture, right: float, classes: int, samples: int
) -> None:
    labels = RNG.integers(0, classes, samples)
    pass_of(scores_of(labels, classes, right=right), labels)
    assert warnings_in(caplog) == []


@pytest.mark.parametrize(
    ("right", "factor", "asked"), [(0.35, 20, True), (0.35, 1, False), (0.9, 20, False)]
)
def test_a_model_that_is_sure_and_wrong_is_asked_about(
    caplog: pytest.LogCaptureFixture, right: float, factor: float, asked: bool
) -> None:
    """As on images of another scale than those of training."""
    logits = factor * scores_of(CLASSES, 10, right=right)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for scores in (logits, probabilities):
        caplog.clear()
        pass_of(scores, CLASSES)
        said = warnings_in(caplog)
        assert len(said) == asked
        if asked:
            assert "sure of its answers: are the inputs prepared as in training" in said[0]


def test_labels_of_a_metric_of_keras_are_known_to_be_classes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SparseCategoricalAccuracy:
        def update_state(self, y_true: Any, y_pred: Any) -> None: ...

        def result(self) -> float:
            return 0.0

        def reset_state(self) -> None: ...

    SparseCategoricalAccuracy.__module__ = "keras.src.metrics"
    metric = as_metric_of(SparseCategoricalAccuracy(), higher_is_better=True)
    pass_of(scores_of(CLASSES, 10), RNG.permutation(CLASSES), metric=metric)
    assert "no better than chance" in warnings_in(caplog)[0]


def test_probabilities_are_no_labels() -> None:
    soft = 0.9 * np.eye(10)[CLASSES] + 0.01
    with pytest.raises(ValueError, match=r"not one-hot .*give the likeliest class, labels.argmax"):
        accuracy(scores_of(CLASSES, 10), soft)


def test_of_one_class_alone_nothing_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.zeros(200, dtype=int)
    pass_of(scores_of(labels, 10), labels)
    assert warnings_in(caplog) == []


def test_chance_is_taken_for_more_as_seldom_as_said(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(200):
        pass_of(scores_of(CLASSES, 10), RNG.integers(0, 10, 300), batch=300)
    assert len(warnings_in(caplog)) >= 192  # One in a hundred is missed, give or take.


# One-hot labels.


def test_one_hot_labels_are_taken_for_their_classes() -> None:
    scores = scores_of(CLASSES, 10, right=0.7)
    one_hot = np.eye(10)[CLASSES]
    for labels in (one_hot, one_hot.astype(np.int64), one_hot.astype(bool)):
        assert accuracy(scores, labels).tolist() == accuracy(scores, CLASSES).tolist()
        assert topk(scores, labels, k=3).tolist() == topk(scores, CLASSES, k=3).tolist()
    classes = RNG.integers(0, 3, (6, 4, 5))
    images = np.moveaxis(np.eye(3)[RNG.integers(0, 3, (6, 4, 5))], -1, 1)
    expected = exact_match(images, classes)
    assert (
        exact_match(images, np.moveaxis(np.eye(3)[classes], -1, 1)).tolist() == expected.tolist()
    )
    assert as_metric_of("f1_macro").score(scores, one_hot) == pytest.approx(
        as_metric_of("f1_macro").score(scores, CLASSES)
    )
    pass_of(scores, one_hot)


def test_what_is_nearly_one_hot_is_an_error_that_says_what_to_do() -> None:
    labels = np.eye(10)[CLASSES]
    labels[5, :2] = 1
    with pytest.raises(ValueError, match=r"class numbers from 0 on, or exactly one 1.*one-hot"):
        accuracy(scores_of(CLASSES, 10), labels)
    with pytest.raises(ValueError, match="one-hot"):
        accuracy(scores_of(CLASSES, 10), np.eye(10)[CLASSES] * 0.9 + 0.01)


# Metrics that say the same of every model.


def test_a_metric_that_is_always_one_is_an_error() -> None:
    labels = RNG.integers(0, 3, 50)
    with pytest.raises(ValueError, match="'top5' is 1 for every model.*only 3 classes"):
        pass_of(scores_of(labels, 3), labels, metric="top5")
    with pytest.raises(ValueError, match="'accuracy' needs a score for each class.*one number"):
        pass_of(RNG.random((50, 1)), labels > 0)


# What is no number.


def test_inputs_that_are_nan_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    scores = scores_of(CLASSES, 10)
    x = RNG.normal(size=(300, 2)).astype(np.float32)
    x[203, 1] = np.nan
    with pytest.raises(ValueError, match="Input 'x' is NaN in sample 203 of the data 'x.npz'"):
        pass_of(scores, CLASSES, x=x)
    x[203, 1] = -np.inf  # So are masks written.
    pass_of(scores, CLASSES, x=x)
    assert warnings_in(caplog) == []
    x[20:30, 0] = np.inf
    pass_of(scores, CLASSES, x=x)
    assert warnings_in(caplog) == ["Input 'x' is infinite in sample 20 of the data 'x.npz'."]


def test_outputs_that_are_nan_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    scores = scores_of(CLASSES, 10)
    scores[77, 3] = np.nan
    for metric in ("accuracy", "mse", "cosine", "f1_macro"):
        with pytest.raises(ValueError, match="output is NaN for sample 77 of the data 'x.npz'"):
            pass_of(scores, CLASSES, metric=metric)
    assert warnings_in(caplog) == []


# In a search.


X = onnx_models.samples(150, 2, 8, 8)
FEW = "There are only 20 calibration samples"


def search(x: np.ndarray = X, labels: Any = None, **kwargs: Any) -> TuningResult:
    model = onnx_models.convnet()
    if labels is None:
        labels = onnx_models.run(model, {"x": X})[0].argmax(1)[: len(x)]
    return tune(
        model,
        **{
            "calibration_data": X[:40],
            "data": {"x": x, "labels": labels},
            "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.2),
            "tuning_criterion": TuningCriterion(max_trials=1, objective="ops"),
            **kwargs,
        },
    )


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_nonsense_ends_a_search_at_once(stopping: str) -> None:
    nan = X.copy()
    nan[60, 0, 3, 3] = np.nan
    with pytest.raises(
        BaselineError, match="Input 'x' is NaN in sample 60 of the evaluation data"
    ):
        search(nan, early_stopping=stopping)
    with pytest.raises(BaselineError, match="The label 77 of sample 0"):
        search(labels=np.full(150, 77), early_stopping=stopping)


def test_a_good_search_says_nothing_and_a_suspicious_one_each_thing_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    search()
    assert warnings_in(caplog) == []
    labels = onnx_models.run(onnx_models.convnet(), {"x": X})[0].argmax(1)
    order = np.argsort(labels, kind="stable")
    shuffled = np.empty_like(labels)
    shuffled[order] = np.roll(labels[order], 75)
    search(
        X[:80],
        shuffled[:80],
        calibration_data=X[:20] / 255,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.6),
        holdout={"x": X[80:], "labels": labels[80:]},
    )
    said = warnings_in(caplog)
    assert sum("calibration sample" in line for line in said) == 1
    assert sum("evaluation samples. One of them" in line for line in said) == 1
    assert sum("in the calibration data and from" in line for line in said) == 1
    assert sum("means 60%" in line for line in said) == 1
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    ("calibration", "evaluation", "differ"),
    [
        (X[:40], X, False),
        (X[:40] * 255, X, True),
        (X[:40] / 255, X, True),
        (X[:40] * 4 + 1, X, False),
        (np.where(RNG.random(X[:40].shape) < 0.001, 100 * X[:40], X[:40]), X, False),
        (np.zeros_like(X[:40]), X, False),
    ],
)
def test_ranges_are_compared(
    caplog: pytest.LogCaptureFixture, calibration: Any, evaluation: Any, differ: bool
) -> None:
    search(evaluation, calibration_data=calibration.astype(np.float32))
    found = [line for line in warnings_in(caplog) if "calibration data" in line]
    assert len(found) == differ
    if differ:
        some = calibration[:64]
        assert f"is from {some.min():.4g} to {some.max():.4g} in the calibration data" in found[0]
        assert "1/255" in found[0]


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, []),
        ({"calibration_data": X[:30]}, []),
        ({"calibration_data": X[:29]}, ["There are only 29 calibration samples"]),
        ({"calibration_data": X[:1]}, ["There is only 1 calibration sample"]),
        ({"calibration_data": [{"x": X[i : i + 10]} for i in (0, 10)]}, [FEW]),
        ({"calibration_data": lambda: iter([{"x": X[:20]}])}, [FEW]),
        ({"calibration_sizes": [20]}, [FEW]),
        ({"x": X[:100]}, []),
        ({"x": X[:99]}, ["There are only 99 evaluation samples. One of them is 1%"]),
    ],
)
def test_few_samples_are_said(
    caplog: pytest.LogCaptureFixture, kwargs: dict[str, Any], said: list[str]
) -> None:
    search(**kwargs)
    found = warnings_in(caplog)
    assert len(found) == len(said)
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (0.4, None),
        (
            0.5,
            "Is this intended? A relative tolerable loss of 0.5 means 50%; for 0.5% give 0.005.",
        ),
        (0.0, None),
    ],
)
def test_a_large_tolerance_is_asked_about(
    caplog: pytest.LogCaptureFixture, loss: float, message: str | None
) -> None:
    search(accuracy_criterion=AccuracyCriterion(tolerable_loss=loss))
    assert warnings_in(caplog) == ([] if message is None else [message])


def test_a_tolerance_of_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="loss of 1 means 100%.*every model meets.*give 0.01"):
        search(accuracy_criterion=AccuracyCriterion(tolerable_loss=1))
    # An error may double.
    labels = onnx_models.run(onnx_models.convnet(), {"x": X})[0] + 0.1
    twice = AccuracyCriterion(tolerable_loss=1)
    assert search(labels=labels, metric="mse", accuracy_criterion=twice).baseline is not None


def test_an_absolute_tolerance_of_all_is_asked_about(caplog: pytest.LogCaptureFixture) -> None:
    absolute = AccuracyCriterion(criterion="absolute", tolerable_loss=5)
    asked = (
        "Is this intended? An absolute tolerable loss of 5 covers the whole range of the metric, "
        "from 0 to 1, so every model meets it."
    )
    result = search(accuracy_criterion=absolute)
    assert result.met
    assert warnings_in(caplog) == [asked]
    assert asked in result.warnings
    caplog.clear()
    search(accuracy_criterion=absolute, metric="f1_macro")
    assert asked in warnings_in(caplog)
    caplog.clear()
    search(accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.99))
    assert not warnings_in(caplog)


def test_data_are_looked_at_with_the_fp32_model_alone() -> None:
    labels = np.full(150, 77)
    evaluation = DataEvaluation({"x": X, "labels": labels})
    session = onnx_models.convnet()
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(session, calibration_data=X[:40])
    model = backend.quantize(backend.tuning_space().fp32())
    assert evaluation(model) == 0
    with pytest.raises(ValueError, match="The label 77"):
        evaluation.for_fp32()(model)


@pytest.mark.parametrize(("factor", "differ"), [(255, True), (1 / 255, True), (1, False)])
def test_what_a_function_feeds_is_compared_with_the_calibration_data(
    caplog: pytest.LogCaptureFixture, factor: float, differ: bool
) -> None:
    x = (X * factor).astype(np.float32)

    def evaluate(session: Any) -> float:
        return 1.0 + float(np.mean(session.run(None, {"x": X})[0].argmax(1)))

    result = tune(
        onnx_models.convnet(),
        calibration_data=x[:40],
        evaluate=evaluate,
        tolerable_loss=0.2,
        max_trials=1,
        objective="ops",
    )
    found = [line for line in warnings_in(caplog) if "calibration data" in line]
    assert bool(found) == differ
    assert list(result.warnings) == found
    if differ:
        (said,) = found
        low, high = X[:64].min(), X[:64].max()
        assert f"{low:.4g} to {high:.4g} in what evaluate= gives to the model" in said
        assert f"{x[:40].min():.4g} to {x[:40].max():.4g} in the calibration data" in said


def test_the_session_that_was_watched_is_as_before() -> None:
    model = OnnxRuntimeBackend(onnx_models.convnet(), calibration_data=X[:8]).quantize(
        QuantConfig({})
    )
    seen = SeenInputs()
    session = model.native()
    with model.showing_inputs(seen):
        session.run(None, {"x": X[:2]})
    assert "run" not in vars(session)
    session.run(None, {"x": X[:2]})


def test_inputs_that_are_no_arrays_do_not_disturb_an_evaluation() -> None:
    class Odd:
        def __array__(self, *args: object, **kwargs: object) -> Any:
            raise RuntimeError("on another device")

    seen = SeenInputs()
    seen({"x": Odd()})
    seen({"x": ["a", "b"]})
    assert seen.warnings(object()) == ()
