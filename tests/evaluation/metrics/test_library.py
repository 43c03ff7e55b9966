"""Metrics by the names of the field, and objects of torchmetrics, against plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
import importlib.util
import itertools
from pathlib import Path
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import CorpusMetric
from optuna_quant import TuningCriterion
from optuna_quant import tune
from optuna_quant.cli.parser import main
from optuna_quant.evaluation.metrics.library import ALIASES
from optuna_quant.evaluation.metrics.library import library_metric_names
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.objects import is_metric_object


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(60, 3)).astype(np.float32)
CLASSES = np.where(RNG.random(60) < 0.6, LOGITS.argmax(1), RNG.integers(0, 3, 60))
TWO = RNG.normal(size=(50, 2)).astype(np.float32)
YES = (RNG.random(50) < 0.4).astype(np.int64)


def value(name: str, output: Any, labels: Any) -> float:
    found = as_metric_of(name)
    assert isinstance(found, CorpusMetric)
    return found.score(np.asarray(output), np.asarray(labels))


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores.astype(np.float64))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def f1_of(right: np.ndarray, predicted: np.ndarray) -> float:
    both = float((right & predicted).sum())
    return 2 * both / float(right.sum() + predicted.sum())


def auc_of(right: np.ndarray, scores: np.ndarray) -> float:
    pairs = itertools.product(scores[right == 1], scores[right == 0])
    return float(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))


# Against plain arithmetic.


def test_f1() -> None:
    predicted = LOGITS.argmax(1)
    each = [f1_of(k == CLASSES, predicted == k) for k in range(3)]
    assert value("f1_macro", LOGITS, CLASSES) == pytest.approx(np.mean(each))
    shares = np.bincount(CLASSES) / 60
    assert value("f1_weighted", LOGITS, CLASSES) == pytest.approx(shares @ each)
    assert value("f1_micro", LOGITS, CLASSES) == pytest.approx((predicted == CLASSES).mean())
    assert value("F1", TWO, YES) == pytest.approx(f1_of(YES == 1, TWO.argmax(1) == 1))
    with pytest.raises(ValueError, match="'f1' is for two classes.*f1_macro, f1_micro or"):
        value("f1", LOGITS, CLASSES)


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_one_score_of_yes_or_no(shape: tuple[int, ...]) -> None:
    logit = TWO[:, 1] - TWO[:, 0]
    expected = f1_of(YES == 1, logit > 0)
    assert value("f1", logit.reshape(shape), YES) == pytest.approx(expected)
    probability = 1 / (1 + np.exp(-logit))
    assert value("f1", probability.reshape(shape), YES) == pytest.approx(expected)
    for scores in (logit, probability):
        assert value("auc", scores.reshape(shape), YES) == pytest.approx(auc_of(YES, logit))
    likelihood = np.where(YES == 1, probability, 1 - probability)
    assert value("log_loss", logit.reshape(shape), YES) == pytest.approx(
        -np.log(likelihood).mean(), rel=1e-5
    )


def test_auc_takes_the_difference_of_two_logits() -> None:
    expected = auc_of(YES, TWO[:, 1] - TWO[:, 0])
    assert value("roc_auc", TWO, YES) == pytest.approx(expected)
    assert value("auc", softmax(TWO), YES) == pytest.approx(expected)
    assert auc_of(YES, TWO[:, 1]) != pytest.approx(expected)


def test_auc_of_several_classes_is_the_mean_of_each_against_the_rest() -> None:
    probabilities = softmax(LOGITS)
    each = [auc_of((k == CLASSES).astype(int), probabilities[:, k]) for k in range(3)]
    assert value("auc", LOGITS, CLASSES) == pytest.approx(np.mean(each))


def test_average_precision() -> None:
    scores, right = np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0])
    assert value("average_precision", scores, right) == pytest.approx((1 + 2 / 3) / 2)
    probabilities = softmax(LOGITS)

    def of(k: int) -> float:
        order = np.argsort(-probabilities[:, k])
        hits = CLASSES[order] == k
        precision = np.cumsum(hits) / np.arange(1, 61)
        return float(precision[hits].mean())

    assert value("average_precision", LOGITS, CLASSES) == pytest.approx(
        np.mean([of(0), of(1), of(2)])
    )


def test_other_metrics_of_classes() -> None:
    predicted = LOGITS.argmax(1)
    recalls = [(predicted == k)[k == CLASSES].mean() for k in range(3)]
    precisions = [(k == CLASSES)[predicted == k].mean() for k in range(3)]
    assert value("balanced accuracy", LOGITS, CLASSES) == pytest.approx(np.mean(recalls))
    assert value("recall_macro", LOGITS, CLASSES) == pytest.approx(np.mean(recalls))
    assert value("precision_macro", LOGITS, CLASSES) == pytest.approx(np.mean(precisions))
    chance = (np.bincount(CLASSES) / 60) @ (np.bincount(predicted, minlength=3) / 60)
    same = (predicted == CLASSES).mean()
    assert value("kappa", LOGITS, CLASSES) == pytest.approx((same - chance) / (1 - chance))
    assert value("mcc", TWO, YES) == pytest.approx(np.corrcoef(TWO.argmax(1), YES)[0, 1])
    picked = softmax(LOGITS)[np.arange(60), CLASSES]
    assert value("log_loss", LOGITS, CLASSES) == pytest.approx(-np.log(picked).mean(), rel=1e-5)


def test_log_loss_knows_the_classes_that_no_sample_has() -> None:
    picked = softmax(LOGITS)[:, 0]
    assert value("log_loss", LOGITS, np.zeros(60)) == pytest.approx(
        -np.log(picked).mean(), rel=1e-5
    )


def test_metrics_of_values() -> None:
    right = RNG.normal(size=(40, 2)) + 3
    given = (right + RNG.normal(size=(40, 2)) * 0.3).astype(np.float32)
    error = given.astype(float) - right
    assert value("rmse", given, right) == pytest.approx(np.sqrt((error**2).mean()))
    assert value("mape", given, right) == pytest.approx(np.abs(error / right).mean())
    part = 1 - (error**2).sum(0) / ((right - right.mean(0)) ** 2).sum(0)
    assert value("r2", given, right) == pytest.approx(part.mean())
    assert value("r2", given[:, :1], right[:, 0]) == pytest.approx(part[0])
    with pytest.raises(ValueError, match=r"rmse needs as many values.*\(40, 2\).*\(40,\)"):
        value("rmse", given, right[:, 0])


def test_classes_at_each_position() -> None:
    scores = RNG.normal(size=(5, 7, 3))
    labels = RNG.integers(0, 3, (5, 7))
    flat = value("f1_macro", scores.reshape(-1, 3), labels.ravel())
    assert value("f1_macro", scores, labels) == pytest.approx(flat)
    assert value("f1_macro", np.moveaxis(scores, -1, 1), labels) == pytest.approx(flat)
    assert value("log_loss", np.moveaxis(scores, -1, 1), labels) == pytest.approx(
        value("log_loss", scores.reshape(-1, 3), labels.ravel())
    )
    assert value("f1_macro", scores.argmax(-1), labels) == pytest.approx(flat)


def test_several_labels_for_each_sample() -> None:
    labels = (RNG.random((60, 3)) < 0.5).astype(np.float32)
    each = [f1_of(labels[:, k] == 1, LOGITS[:, k] > 0) for k in range(3)]
    assert value("f1_macro", LOGITS, labels) == pytest.approx(np.mean(each))
    curves = [auc_of(labels[:, k], LOGITS[:, k]) for k in range(3)]
    assert value("auc", LOGITS, labels) == pytest.approx(np.mean(curves))


def test_what_is_wrong_with_labels_is_said() -> None:
    with pytest.raises(ValueError, match="log_loss needs labels from 0 to 2.* 3 classes.* is 3"):
        value("log_loss", LOGITS, CLASSES + 1)
    with pytest.raises(ValueError, match="mcc needs the labels as class numbers.*with fractions"):
        value("mcc", LOGITS, CLASSES + 0.5)
    with pytest.raises(ValueError, match="auc needs a score for each class"):
        value("auc", LOGITS.argmax(1), CLASSES)


# Their names.


def test_directions_and_names() -> None:
    lower = {"log_loss", "rmse", "mape"}
    assert {"f1", "f1_macro", "roc_auc", "average_precision", "r2", "mcc"} < set(
        library_metric_names()
    )
    for name in library_metric_names():
        found = pickle.loads(pickle.dumps(as_metric_of(name)))
        assert found.name == name
        assert found.higher_is_better is (name not in lower)
    assert as_metric_of("AUC").name == "roc_auc"
    with pytest.raises(ValueError, match="no metric 'f1_makro'. Did you mean 'f1_macro'?"):
        as_metric_of("f1_makro")


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_the_metric_that_it_stands_for(alias: str, name: str) -> None:
    assert alias not in library_metric_names()
    assert as_metric_of(alias).name == as_metric_of(name).name == name


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
def test_the_average_may_come_first(name: str, average: str) -> None:
    usual = value(f"{name}_{average}", LOGITS, CLASSES)
    assert value(f"{average} {name}", LOGITS, CLASSES) == usual


def test_an_unknown_name_is_compared_with_aliases_and_the_error_names_them() -> None:
    with pytest.raises(ValueError, match="no metric 'macro_f2'. Did you mean 'macro_f1'") as found:
        as_metric_of("macro_f2")
    assert all(alias in str(found.value) for alias in ALIASES)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    with pytest.raises(ImportError, match=r"'f1' .*not installed.*pip install scikit-learn"):
        as_metric_of("f1")


def test_no_library_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, optuna_quant\n"
        "from optuna_quant.evaluation.metrics.named import as_metric_of\n"
        "as_metric_of('f1')\n"
        "assert not {'sklearn', 'torch', 'torchmetrics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Objects.


class Hits:
    """A metric of its own, with nothing from a library."""

    higher_is_better: bool | None = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.seen = 0

    def update(self, output: np.ndarray, labels: np.ndarray) -> None:
        assert type(output) is np.ndarray
        self.right += int((output.argmax(1) == labels).sum())
        self.seen += len(labels)

    def compute(self) -> float:
        return self.right / self.seen


def test_an_object_is_a_metric() -> None:
    given = Hits()
    given.update(LOGITS, CLASSES * 0 + 5)  # What it has seen before is not counted.
    found = as_metric_of(given)
    assert isinstance(found, CorpusMetric)
    assert (found.name, found.higher_is_better) == ("Hits", True)
    many = np.repeat(LOGITS, 10, axis=0), np.repeat(CLASSES, 10)
    assert found.score(*many) == pytest.approx((LOGITS.argmax(1) == CLASSES).mean())
    assert (given.right, given.seen) == (0, 60)
    assert not is_metric_object(Hits)


def test_an_object_that_does_not_say_its_direction() -> None:
    given = Hits()
    given.higher_is_better = None
    with pytest.raises(ValueError, match=r"Hits does not say whether higher is better"):
        as_metric_of(given)
    assert as_metric_of(given, higher_is_better=False).higher_is_better is False


def test_an_object_that_computes_no_number() -> None:
    given = Hits()
    given.compute = lambda: {"a": 1.0}  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ValueError, match="Hits must compute one number, but it computed {'a'"):
        as_metric_of(given).score(LOGITS, CLASSES)


def test_objects_of_torchmetrics_are_metrics() -> None:
    import torchmetrics

    predicted = LOGITS.argmax(1)
    each = [f1_of(k == CLASSES, predicted == k) for k in range(3)]
    found = as_metric_of(torchmetrics.F1Score(task="multiclass", num_classes=3, average="macro"))
    assert isinstance(found, CorpusMetric)
    assert found.higher_is_better is True
    assert found.score(LOGITS, CLASSES) == pytest.approx(np.mean(each))
    error = as_metric_of(torchmetrics.MeanSquaredError())
    assert isinstance(error, CorpusMetric)
    assert error.higher_is_better is False
    assert error.score(LOGITS, LOGITS + 2) == pytest.approx(4)
    with pytest.raises(ValueError, match="must compute one number.*choose an average"):
        as_metric_of(torchmetrics.F1Score(task="multiclass", num_classes=3, average="none")).score(
            LOGITS, CLASSES
        )


class OfKeras:
    """A metric as Keras has it: it takes the labels first, and does not say its direction."""

    def __init__(self) -> None:
        self.reset_state()

    def reset_state(self) -> None:
        self.right = self.seen = 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.right += int((y_pred.argmax(1) == y_true).sum())
        self.seen += len(y_true)

    def result(self) -> Any:
        return np.float32(self.right / self.seen)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()


def test_objects_of_keras_are_metrics() -> None:
    given = OfKeras()
    given.update_state(CLASSES, LOGITS)
    found = as_metric_of(given, higher_is_better=True)
    assert isinstance(found, CorpusMetric)
    assert (found.name, found.higher_is_better) == ("OfKeras", True)
    many = np.repeat(LOGITS, 10, axis=0), np.repeat(CLASSES, 10)
    assert found.score(*many) == pytest.approx((LOGITS.argmax(1) == CLASSES).mean())
    assert given.seen == len(CLASSES)
    with pytest.raises(ValueError, match="OfKeras does not say whether higher is better"):
        as_metric_of(given)
    given.result = lambda: [0.5, 0.5]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="The metric OfKeras must compute one number"):
        as_metric_of(given, higher_is_better=True).score(LOGITS, CLASSES)


def keras_metric(name: str) -> Any:
    """An object of a class that Keras has, with a name, as far as its class tells."""
    return type(name, (OfKeras,), {"__module__": "keras.src.metrics"})()


ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("CategoricalAccuracy", CLASSES, r"takes one-hot labels.*SparseCategoricalAccuracy\(\)"),
        ("F1Score", CLASSES, "takes one-hot labels.*metric='f1_macro'"),
        ("SparseCategoricalAccuracy", ONE_HOT, r"takes class numbers.*use CategoricalAccuracy"),
        ("Accuracy", CLASSES, r"with one value.*\(60, 3\) and the labels \(60,\)"),
        ("BinaryAccuracy", CLASSES[:, None], "with one value"),
    ],
)
def test_labels_in_a_form_that_a_metric_of_keras_does_not_take(
    name: str, labels: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} .*{message}"):
        as_metric_of(keras_metric(name), higher_is_better=True).score(LOGITS, labels)


@pytest.mark.parametrize("labels", [CLASSES, CLASSES[:, None]])
def test_labels_in_the_form_that_a_metric_of_keras_takes(labels: Any) -> None:
    metric = as_metric_of(keras_metric("SparseCategoricalAccuracy"), higher_is_better=True)
    assert np.isfinite(metric.score(LOGITS, labels))


@pytest.mark.parametrize("given", [OfKeras, Hits])
def test_a_class_is_no_object(given: type) -> None:
    with pytest.raises(TypeError, match=rf"give an object of it, {given.__name__}\("):
        as_metric_of(given)  # type: ignore[arg-type]


def test_the_message_without_a_direction_names_both() -> None:
    with pytest.raises(ValueError, match="higher_is_better=True or False.*--higher-is-better or "):
        as_metric_of(OfKeras())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sparse_categorical_accuracy", "accuracy"),
        ("acc", "accuracy"),
        ("mean_squared_error", "mse"),
        ("sparse_categorical_crossentropy", "log_loss"),
        ("r2_score", "r2"),
    ],
)
def test_names_of_other_libraries_are_understood(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
        as_metric_of(given)


# A search.


X = onnx_models.samples(120, 2, 8, 8)


@pytest.fixture
def data() -> Iterator[dict[str, np.ndarray]]:
    (scores,) = onnx_models.run(onnx_models.convnet(), {"x": X})
    yield {"x": X, "labels": scores.argmax(axis=1)}


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("metric", ["f1_macro", Hits(), OfKeras()])
def test_a_search_with_them(data: dict[str, np.ndarray], metric: Any, n_jobs: int) -> None:
    result = tune(
        onnx_models.convnet(),
        calibration_data=X[:40],
        data=data,
        metric=metric,
        n_jobs=n_jobs,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.2, higher_is_better=True),
        tuning_criterion=TuningCriterion(max_trials=5, objective="ops"),
    )
    assert result.baseline == 1
    predicted = result.model().session.run(None, {"x": X})[0].argmax(1)
    labels = data["labels"]
    present = sorted({*labels, *predicted})
    each = [f1_of(labels == k, predicted == k) for k in present]
    expected = np.mean(each) if metric == "f1_macro" else (predicted == labels).mean()
    assert result.metric == pytest.approx(expected)


def test_the_command_takes_them(
    data: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "hits", raising=False)
    onnx.save(onnx_models.convnet(), "net.onnx")
    np.savez("x.npz", **data)
    Path("hits.py").write_text(
        "class Hits:\n"
        "    higher_is_better = False\n"
        "    def reset(self): self.wrong = 0\n"
        "    def update(self, output, labels):\n"
        "        self.wrong += int((output.argmax(1) != labels).sum())\n"
        "    def compute(self): return self.wrong\n"
        "metric = Hits()\n"
    )
    command = [
        "tune",
        "net.onnx",
        "--objective",
        "ops",
        "--calibration",
        "x.npz",
        "--data",
        "x.npz",
        "--fresh",
    ]
    assert main([*command, "--metric", "log_loss", "--tolerable-loss", "0.4"]) == 0
    assert "lower is better" in capsys.readouterr().out
    own = [*command, "--metric", "hits.py", "--lower-is-better", "--criterion", "absolute"]
    assert main([*own, "--tolerable-loss", "60"]) == 0
    assert "FP32 0," in capsys.readouterr().out
