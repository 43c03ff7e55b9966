"""Metrics of each sample, and of a whole set."""

from __future__ import annotations

from pathlib import Path
import pickle
from typing import Any

import numpy as np
import pytest

from optuna_quant import tune
from optuna_quant._common.option import options_of
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.margins import probability_margin
from optuna_quant.evaluation.metrics.margins import topk_margin
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.named import metrics
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.evaluation.metrics.sample_metrics import exact_match
from optuna_quant.evaluation.metrics.sample_metrics import iou
from optuna_quant.evaluation.metrics.sample_metrics import top5
from optuna_quant.evaluation.metrics.sample_metrics import topk
from optuna_quant.tuning.options.request import TuneOptions


def zeros(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.zeros(len(labels))


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


# The metrics.


def test_accuracy_and_exact_match_of_several_positions() -> None:
    scores = np.eye(4)[[[0, 1, 2], [3, 3, 0]]]
    labels = np.array([[0, 1, 2], [3, 0, 0]])
    assert accuracy(scores, labels) == pytest.approx([1, 2 / 3])
    assert exact_match(scores, labels).tolist() == [1, 0]
    assert exact_match(labels, labels).tolist() == [1, 1]
    assert exact_match(np.eye(3), np.array([0, 1, 1])).tolist() == [1, 1, 0]
    with pytest.raises(ValueError, match=r"exact_match needs labels.*\(2, 3, 4\).*\(2, 5\)"):
        exact_match(scores, np.zeros((2, 5)))


def test_labels_may_have_a_single_axis() -> None:
    labels = np.array([[0], [1], [1]])
    assert accuracy(np.eye(3), labels).tolist() == [1, 1, 0]
    assert top5(np.eye(3), labels).tolist() == [1, 1, 1]
    assert accuracy(labels, labels).tolist() == [1, 1, 1]  # These are predicted classes.
    masks = np.zeros((2, 1, 4, 4), dtype=int)
    assert iou(np.zeros((2, 3, 4, 4)), masks).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int8])
def test_topk(dtype: Any) -> None:
    scores = np.array([[5, 4, 3, 2], [0, 0, 0, 0], [1, 2, 3, 4]], dtype=dtype)
    labels = np.array([1, 1, 1])
    assert topk(scores, labels, k=1).tolist() == [0, 0, 0]
    assert topk(scores, labels, k=2).tolist() == [1, 1, 0]
    assert topk(scores, labels, k=3).tolist() == [1, 1, 1]
    assert topk(scores, labels, k=9).tolist() == [1, 1, 1]
    assert topk(scores, np.array([-1, 7, 3]), k=4).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="top2 needs"):
        topk(scores, np.zeros((3, 4)), k=2)


def test_iou_against_plain_arithmetic() -> None:
    labels = np.array([[[0, 0], [1, 1]], [[2, 2], [2, 2]]], dtype=np.uint8)
    predicted = np.array([[[0, 1], [1, 1]], [[2, 2], [2, 2]]])
    expected = [(1 / 2 + 2 / 3) / 2, 1]
    assert iou(predicted, labels) == pytest.approx(expected)
    scores = np.moveaxis(np.eye(5)[predicted], -1, 1)
    assert iou(scores, labels) == pytest.approx(expected)
    assert iou(np.eye(5)[predicted], labels) == pytest.approx(expected)
    assert iou(predicted - 1, labels.astype(int) - 1) == pytest.approx(expected)
    assert iou(1 - labels.astype(int), labels)[0] == 0
    with pytest.raises(ValueError, match="iou needs integers.*float64"):
        iou(predicted, labels.astype(float))


def test_iou_takes_the_classes_to_be_first() -> None:
    output = np.random.default_rng(0).normal(size=(2, 4, 4, 4))
    assert iou(output, output.argmax(axis=1)).tolist() == [1, 1]


# Margins.


def test_probability_margin_of_scores_and_of_probabilities() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 7)) * 3
    ordered = np.sort(softmax(scores), axis=1)
    expected = ordered[:, -1] - ordered[:, -2]
    labels = np.zeros(5, dtype=int)
    assert probability_margin(scores, labels) == pytest.approx(expected)
    assert probability_margin(softmax(scores), labels) == pytest.approx(expected)
    assert probability_margin(scores.astype(np.float32), labels) == pytest.approx(expected, 1e-5)
    # Each sample is taken for what it is, whatever else is in the batch.
    mixed = np.where(np.arange(5)[:, None] % 2, scores, softmax(scores))
    assert probability_margin(mixed, labels) == pytest.approx(expected)


def test_probability_margin_is_the_smallest_of_a_sample() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 4, 5))
    ordered = np.sort(softmax(scores, axis=1), axis=1)
    expected = (ordered[:, -1] - ordered[:, -2]).min(axis=1)
    assert probability_margin(scores, np.zeros((3, 5))) == pytest.approx(expected)


def test_probability_margin_of_extreme_scores() -> None:
    scores = np.array([[1e4, -1e4], [3.0, 3.0], [2.0, -np.inf]])
    found = probability_margin(scores, np.zeros(3))
    assert found is not None
    assert found.tolist() == [1, 0, 1]
    found = probability_margin(np.array([[255, 0]], dtype=np.uint8), np.zeros(1))
    assert found is not None
    assert found == pytest.approx(1)


def test_margins_that_are_not_known() -> None:
    assert probability_margin(np.array([1, 2]), np.array([1, 1])) is None
    assert probability_margin(np.ones((2, 1)), np.zeros(2)) is None
    assert topk_margin(np.ones((2, 5)), np.zeros(2), k=5) is None
    assert topk_margin(np.ones((2, 5, 5)), np.zeros(2), k=2) is None


def test_topk_margin_is_relative() -> None:
    scores = np.array([[0.0, 4, 3, 1], [0, 40, 30, 10], [1, 1, 1, 1]])
    assert topk_margin(scores, np.zeros(3), k=2) == pytest.approx([0.5, 0.5, 0])
    assert topk_margin(scores, np.zeros(3), k=1) == pytest.approx([0.25, 0.25, 0])


# What is taken as a metric.


def test_named_metrics() -> None:
    unit, error = (0.0, 1.0), (0.0, np.inf)
    known: dict[str, tuple[float, float] | None] = {  # A metric of the whole set has none.
        **dict.fromkeys(("accuracy", "top5", "exact_match", "iou"), unit),
        **dict.fromkeys(("mse", "mae"), error),
        "agreement": unit,
        "cosine": (-1.0, 1.0),
        "relative_error": error,
    }
    assert list(metrics()) == list(known)
    for name, (score, higher) in metrics().items():
        found = as_metric_of(name)
        assert found.score == score or name == "top5"
        assert found.higher_is_better is higher
        assert (found.bounds if isinstance(found, SampleMetric) else None) == known[name]
        assert higher or known[name] in (error, None)


@pytest.mark.parametrize("name", metrics())
def test_a_named_metric_is_listed_where_users_look(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    flag = options_of(TuneOptions)["metric"].flag
    assert flag is not None
    for text in (page, flag.help, tune.__doc__ or "", DataEvaluation.__doc__ or ""):
        assert name in text


def test_names_are_found_however_they_are_spelled() -> None:
    assert as_metric_of("relative error") == as_metric_of("relative_error")
    assert as_metric_of("Exact-Match") == as_metric_of("exact_match")
    assert as_metric_of("top-5").name == "top5"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("acuracy", "accuracy"), ("relativ eror", "relative_error"), ("MSEE", "mse")],
)
def test_a_typo_is_told_the_nearest_name(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"no metric '{name}'. Did you mean '{meant}'?"):
        as_metric_of(name)


@pytest.mark.parametrize("name", ["perplexity", "NLL"])
def test_likelihoods_are_told_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match="of classes is log_loss.* higher_is_better=False"):
        as_metric_of(name)


def test_top_of_any_number() -> None:
    found = as_metric_of("top12")
    assert isinstance(found, SampleMetric)
    assert (found.name, found.bounds) == ("top12", (0, 1))
    scores = -np.arange(20.0)[None]
    assert found.score(scores, np.array([11])).tolist() == [1]
    assert found.score(scores, np.array([12])).tolist() == [0]
    for name in ("top0", "top", "top1.5", "topK"):
        with pytest.raises(ValueError, match=f"no metric '{name}'.* The metrics are: accuracy"):
            as_metric_of(name)


@pytest.mark.parametrize("name", ["accuracy", "top3", "top5", "iou"])
def test_metrics_can_be_sent_to_other_processes(name: str) -> None:
    found = as_metric_of(name)
    assert pickle.loads(pickle.dumps(found)).bounds == (0, 1)


def test_functions_and_metrics_are_metrics() -> None:
    found = as_metric_of(zeros, higher_is_better=False)
    assert isinstance(found, SampleMetric)
    assert (found.name, found.bounds, found.higher_is_better) == ("zeros", None, False)
    own = SampleMetric(name="own", score=zeros, bounds=(0, 1))
    assert as_metric_of(own) is own
    corpus = CorpusMetric(name="AUC", score=lambda output, labels: 0.5)
    assert as_metric_of(corpus) is corpus


def test_a_function_that_takes_the_labels_first_is_refused() -> None:
    def mean_error(y_true: Any, y_pred: Any) -> Any:
        return np.abs(y_true - y_pred)

    with pytest.raises(ValueError, match=r"lambda output, label: mean_error\(label, output\)"):
        as_metric_of(mean_error)
    assert as_metric_of(lambda output, label: mean_error(label, output)).bounds is None


def test_bounds_are_given_to_a_metric_without() -> None:
    found = as_metric_of("mse", bounds=(0, 4))
    assert isinstance(found, SampleMetric)
    assert (found.bounds, found.higher_is_better) == ((0.0, 4.0), False)
    assert as_metric_of("accuracy", bounds=(0, 1)) == as_metric_of("accuracy")
    with pytest.raises(ValueError, match=r"'accuracy' has the bounds \(0.0, 1.0\).*leave them"):
        as_metric_of("accuracy", bounds=(0, 2))
    with pytest.raises(ValueError, match="'AUC' is a metric of the whole set"):
        as_metric_of(CorpusMetric(name="AUC", score=lambda o, t: 0.5), bounds=(0, 1))


@pytest.mark.parametrize(
    "bounds",
    [(1, 0), (0, 0), (-np.inf, np.inf), (np.nan, 1), (0,), 1, ("a", 1), (np.inf, np.inf)],
)
def test_bounds_that_are_none(bounds: Any) -> None:
    with pytest.raises(ValueError, match="bounds of the metric 'own' must be two numbers"):
        SampleMetric(name="own", score=zeros, bounds=bounds)
    with pytest.raises(ValueError, match="bounds of the metric 'mse' must be two"):
        as_metric_of("mse", bounds=bounds)


def test_what_is_no_metric() -> None:
    with pytest.raises(TypeError, match="metric must be a name.*got 3"):
        as_metric_of(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name of a metric must be a string"):
        SampleMetric(name="", score=zeros)
    with pytest.raises(TypeError, match="score of the metric 'own' must be a function"):
        CorpusMetric(name="own", score=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="margin of the metric 'own' must be a function"):
        SampleMetric(name="own", score=zeros, margin=1)  # type: ignore[arg-type]
