"""Metrics that compare with the FP32 model's own outputs, and need no labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import CorpusMetric
from optuna_quant import DataEvaluation
from optuna_quant import SampleMetric
from optuna_quant import TuningCriterion
from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli.parser import main
from optuna_quant.evaluation.metrics.criterion import criterion_for
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.reference import agreement
from optuna_quant.evaluation.metrics.reference import cosine
from optuna_quant.evaluation.metrics.reference import predicted_classes
from optuna_quant.evaluation.metrics.reference import relative_error
from optuna_quant.evaluation.metrics.reference_outputs import ReferenceOutputs
from optuna_quant.study.errors import BaselineError
from optuna_quant.tuning.options.collect import collect
from optuna_quant.tuning.options.request import TuneOptions


X = onnx_models.samples(150, 2, 8, 8)
FOREVER = TuningCriterion(timeout=None, max_trials=12, objective="ops")


@pytest.fixture(scope="module")
def backend() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(onnx_models.convnet(), calibration_data=X[:40])


def outputs(model: Any) -> np.ndarray:
    return np.asarray(model.session.run(None, {"x": X})[0])


# What they are.


def test_agreement_counts_equal_classes() -> None:
    reference = np.array([[1.0, 2, 3], [3, 2, 1], [0, 1, 0]])
    other = np.array([[0.0, 0, 9], [1, 2, 0], [5, 6, 0]])
    classes = predicted_classes(reference)
    assert classes.tolist() == [2, 0, 1]
    assert classes.dtype == np.uint8
    assert agreement(other, classes).tolist() == [1, 0, 1]
    positions = np.stack([reference, other])  # Two samples of three positions.
    assert agreement(positions, predicted_classes(positions[::-1])).tolist() == [2 / 3, 2 / 3]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 8, 8, 3), (2, 3, 4, 8, 8)])
def test_agreement_finds_the_classes_of_images(shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(0).normal(size=shape)
    axis = shape.index(3)
    assert (predicted_classes(scores) == scores.argmax(axis=axis)).all()


def test_agreement_of_what_has_no_classes_names_other_metrics() -> None:
    for wrong in (np.zeros((4, 1)), np.zeros(4), np.zeros((4, 7, 1))):
        with pytest.raises(ValueError, match="at least two classes.*'relative_error'"):
            predicted_classes(wrong)
    classes = np.array([3, 1, 2])
    assert agreement(classes, predicted_classes(np.array([3, 1, 0]))).tolist() == [1, 1, 0]


def test_cosine_against_plain_arithmetic() -> None:
    reference = np.array([[3.0, 4], [1, 0], [1, 0], [0, 0], [0, 0]], dtype=np.float32)
    other = np.array([[3.0, -4], [0, 2], [-5, 0], [0, 0], [1, 0]], dtype=np.float32)
    assert cosine(other, reference) == pytest.approx([(9 - 16) / 25, 0, -1, 1, 0])
    assert cosine(reference[:3], reference[:3]).tolist() == [1, 1, 1]


def test_relative_error_against_plain_arithmetic() -> None:
    reference = np.array([[3.0, 4], [3, 4], [0, 0], [0, 0]])
    other = np.array([[3.0, 4], [6, 8], [0, 0], [1, 0]])
    assert relative_error(other, reference).tolist() == [0, 1, 0, 1]
    assert relative_error(1.25 * reference[:1], reference[:1]) == pytest.approx([0.25])


@pytest.mark.parametrize("function", [cosine, relative_error])
def test_another_shape_is_an_error(function: Any) -> None:
    with pytest.raises(ValueError, match=r"needs an output of the shape.*\(2, 3\).*\(2, 4\)"):
        function(np.zeros((2, 4)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"reference": "fp16"}, ValueError, "must be one of labels, fp32, but got 'fp16'"),
        ({"reference": "fp32", "keep": 3}, TypeError, "keep of the metric 'own' must be a funct"),
        ({"keep": abs}, ValueError, 'needs reference="fp32"'),
    ],
)
@pytest.mark.parametrize("kind", [SampleMetric, CorpusMetric])
def test_references_that_are_none(
    kind: Any, kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind(name="own", score=cosine, **kwargs)


# What is kept.


def test_only_passes_in_the_order_of_the_data_are_kept() -> None:
    kept = ReferenceOutputs()
    shuffled = np.array([2, 0, 1])
    assert kept.take(shuffled, np.array([[2.0], [0], [1]]), samples=3).tolist() == [[2], [0], [1]]
    runs = []

    def run() -> None:
        runs.append(None)
        kept.take(np.arange(2), np.array([[0.0], [1]]), samples=3)
        kept.take(np.arange(2, 3), np.array([[2.0]]), samples=3)

    kept.complete(run)
    kept.complete(run)
    assert len(runs) == 1
    assert kept.of(shuffled).tolist() == [[2], [0], [1]]


def test_outputs_of_several_shapes_are_kept() -> None:
    kept = ReferenceOutputs()
    kept.take(np.arange(2), np.zeros((2, 3)), samples=4)
    kept.take(np.arange(2, 4), np.ones((2, 5)), samples=4)
    assert kept.of(np.array([1, 0])).shape == (2, 3)
    assert kept.of(np.array([3])).tolist() == [[1, 1, 1, 1, 1]]


@pytest.mark.parametrize("threads", [1, 2])
def test_scores_are_those_of_plain_arithmetic(backend: OnnxRuntimeBackend, threads: int) -> None:
    space = backend.tuning_space()
    fp32, int8 = backend.quantize(space.fp32()), backend.quantize(space.default())
    here, there = outputs(int8), outputs(fp32)
    expected = {
        "agreement": here.argmax(1) == there.argmax(1),
        "cosine": (here * there).sum(1)
        / np.sqrt((here**2).sum(1, dtype=float) * (there**2).sum(1, dtype=float)),
        "relative_error": np.sqrt(((here - there) ** 2).sum(1) / (there**2).sum(1)),
    }
    order = np.random.default_rng(0).permutation(len(X))
    for name, scores in expected.items():
        evaluation = DataEvaluation({"x": X}, name, threads=threads)
        assert evaluation.for_fp32()(fp32) == (0 if name == "relative_error" else pytest.approx(1))
        found = np.concatenate(list(evaluation.scores(int8, order)))
        assert found == pytest.approx(scores[order].astype(float), abs=1e-5)
        assert evaluation(int8) == pytest.approx(scores.mean(), abs=1e-5)


def test_a_process_that_has_not_seen_the_baseline_runs_it_once(
    backend: OnnxRuntimeBackend,
) -> None:
    space = backend.tuning_space()
    int8 = backend.quantize(space.default())
    built = []

    def fp32() -> Any:
        built.append(None)
        return backend.quantize(space.fp32())

    first, second = (DataEvaluation({"x": X}, "agreement") for _ in range(2))
    with pytest.raises(ValueError, match=r"not known: evaluate the FP32 model first.*refer_to"):
        first(int8)
    first.for_fp32()(backend.quantize(space.fp32()))
    second.refer_to(fp32)
    order = np.random.default_rng(0).permutation(len(X))
    for _ in range(2):
        for one, other in zip(first.scores(int8, order), second.scores(int8, order), strict=True):
            assert one.tolist() == other.tolist()
    assert len(built) == 1


def test_only_what_the_metric_needs_is_kept(backend: OnnxRuntimeBackend) -> None:
    space = backend.tuning_space()
    given: list[np.ndarray] = []

    def second_best(output: np.ndarray) -> np.ndarray:
        return np.sort(output, axis=1)[:, -2]

    def score(output: np.ndarray, kept: np.ndarray) -> np.ndarray:
        given.append(kept)
        return np.abs(second_best(output) - kept)

    metric = SampleMetric(
        name="own", score=score, reference="fp32", keep=second_best, higher_is_better=False
    )
    evaluation = DataEvaluation({"x": X}, metric)
    evaluation.refer_to(lambda: backend.quantize(space.fp32()))
    int8 = backend.quantize(space.default())
    there = outputs(backend.quantize(space.fp32()))
    expected = np.abs(second_best(outputs(int8)) - second_best(there)).mean()
    assert evaluation(int8) == pytest.approx(expected, rel=1e-4)
    assert np.concatenate(given) == pytest.approx(second_best(there), rel=1e-5)


def test_a_metric_of_the_whole_set_may_compare_as_well(backend: OnnxRuntimeBackend) -> None:
    space = backend.tuning_space()
    metric = CorpusMetric(
        name="largest error", score=lambda o, r: np.abs(o - r).max(), reference="fp32"
    )
    evaluation = DataEvaluation({"x": X}, metric)
    fp32, int8 = backend.quantize(space.fp32()), backend.quantize(space.default())
    assert evaluation.for_fp32()(fp32) == 0
    assert evaluation(int8) == pytest.approx(np.abs(outputs(int8) - outputs(fp32)).max(), rel=1e-4)


# Data without labels.


class Inputs:
    """A dataset without labels."""

    def __init__(self, form: str) -> None:
        self._form = form

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return {"array": X[index], "dict": {"x": X[index]}, "pair": (X[index], 3)}[self._form]


@pytest.mark.parametrize("form", ["array", "dict", "pair"])
def test_datasets_need_no_labels(backend: OnnxRuntimeBackend, form: str) -> None:
    space = backend.tuning_space()
    evaluation = DataEvaluation(Inputs(form), "agreement")
    evaluation.check(backend.quantize(space.fp32()))
    assert evaluation.for_fp32()(backend.quantize(space.fp32())) == 1


def test_labels_are_missed_where_they_are_needed(backend: OnnxRuntimeBackend) -> None:
    fp32 = backend.quantize(backend.tuning_space().fp32())
    with pytest.raises(ValueError, match="one array of labels.*Without labels, metric='agreement"):
        DataEvaluation({"x": X}, "accuracy").check(fp32)
    with pytest.raises(ValueError, match=r"Input 'x' is missing.*the model's inputs \(x\)\.$"):
        DataEvaluation({"image": X}, "agreement").check(fp32)


# A search.


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_a_search_without_labels(stopping: str) -> None:
    model = onnx_models.convnet()
    holdout = onnx_models.samples(120, 2, 8, 8, seed=9)
    result = tune(
        model,
        calibration_data=X[:40],
        data={"x": X},
        metric="agreement",
        early_stopping=stopping,
        holdout={"x": holdout},
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.1),
        tuning_criterion=TuningCriterion(objective="ops"),
    )
    assert result.met
    assert result.baseline == 1
    int8 = result.model()
    (there,) = onnx_models.run(model, {"x": X})
    expected = (outputs(int8).argmax(1) == there.argmax(1)).mean()
    assert result.metric == pytest.approx(expected)
    assert "compared with the FP32 model's outputs, without labels: it is not accuracy" in str(
        result
    )
    assert result.holdout is not None
    assert result.holdout.baseline == 1
    here = int8.session.run(None, {"x": holdout})[0].argmax(1)
    there = onnx_models.run(model, {"x": holdout})[0].argmax(1)
    assert result.holdout.metric == pytest.approx((here == there).mean())


def test_a_search_is_continued(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "calibration_data": X[:40],
        "data": {"x": X},
        "metric": "cosine",
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.0),
        "storage": str(tmp_path / "journal"),
    }
    model = onnx_models.convnet()
    short = tune(model, **given, tuning_criterion=TuningCriterion(max_trials=2, objective="ops"))
    started = len(short.study.trials)
    longer = tune(model, **given, tuning_criterion=TuningCriterion(max_trials=6, objective="ops"))
    assert started < len(longer.study.trials)
    (there,) = onnx_models.run(model, {"x": X})
    for trial in longer.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))[1:]:
        space, backend = longer.space, longer.backend
        here = outputs(backend.quantize(space.config_from_params(trial.params)))
        assert trial.values == [pytest.approx(cosine(here, there).mean(), abs=1e-6)]


def test_a_search_with_errors_is_continued(tmp_path: Path) -> None:
    """An error has no upper bound, and a model that was given up because of it has none."""
    given: dict[str, Any] = {
        "calibration_data": X[:40],
        "data": {"x": X},
        "metric": "relative_error",
        "accuracy_criterion": AccuracyCriterion(
            higher_is_better=False, criterion="absolute", tolerable_loss=1e-4
        ),
        "storage": str(tmp_path / "journal"),
    }
    model = onnx_models.convnet()
    short = tune(model, **given, tuning_criterion=TuningCriterion(max_trials=2, objective="ops"))
    assert None in short.study.trials[1].user_attrs["evidence"]["bounds"]
    assert len(short.study.trials) == 3
    longer = tune(model, **given, tuning_criterion=TuningCriterion(max_trials=4, objective="ops"))
    # One that goes on with the samples of an earlier trial of the same model does not count.
    assert len(longer.study.trials) >= 5


def test_errors_are_absolute_for_fp32_has_none() -> None:
    model, given = onnx_models.convnet(), {"calibration_data": X[:40], "data": {"x": X}}
    result = tune(model, **given, metric="relative error", tuning_criterion=FOREVER)
    assert result.criterion.criterion == "absolute"
    assert not result.criterion.higher_is_better
    assert result.baseline == 0
    assert result.metric is not None
    assert result.met is (result.metric <= 0.01)
    with pytest.raises(ValueError, match=r"0 for the FP32 model.*criterion='absolute'.*0\.05"):
        tune(
            model,
            **given,
            metric="relative_error",
            accuracy_criterion=AccuracyCriterion(criterion="relative", tolerable_loss=0.05),
        )
    looser = AccuracyCriterion(tolerable_loss=0.05)  # Which does not say of what kind it is.
    for options in ({"accuracy_criterion": looser}, {"tolerable_loss": 0.05}):
        given_criterion = collect(TuneOptions, options).accuracy_criterion
        found = criterion_for(as_metric_of("relative_error"), given_criterion)
        assert (found.criterion, found.tolerable_loss) == ("absolute", 0.05)
        assert not found.higher_is_better


def test_labels_that_are_there_are_not_used_and_this_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = tune(
        onnx_models.convnet(),
        calibration_data=X[:40],
        data={"x": X, "labels": np.full(len(X), 77)},
        metric="agreement",
        tuning_criterion=TuningCriterion(max_trials=1, objective="ops"),
    )
    assert result.baseline == 1
    (said,) = [r.getMessage() for r in caplog.records if "not used" in r.getMessage()]
    assert said == (
        "The metric 'agreement' compares with the FP32 model's outputs: 'labels' in the "
        "evaluation data is not used."
    )


def test_what_the_metric_says_of_the_model_is_an_error() -> None:
    with pytest.raises(
        BaselineError, match="compares classes and needs scores of at least two classes"
    ):
        tune(
            onnx_models.convnet(),
            calibration_data=X[:40],
            data={"x": X},
            metric=SampleMetric(
                name="own",
                score=lambda output, kept: agreement(output[:, :1], kept),
                reference="fp32",
            ),
            tuning_criterion=TuningCriterion(objective="ops"),
        )


def test_the_command_needs_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx_models.convnet(), "net.onnx")
    np.savez("x.npz", x=X)
    command = ["tune", "net.onnx", "--calibration", "x.npz", "--data", "x.npz"]
    command += ["--objective", "ops"]
    assert main([*command, "--metric", "agreement", "--tolerable-loss", "0.1"]) == 0
    assert "FP32 1," in (said := capsys.readouterr().out)
    assert "it is not accuracy" in said
    error = [*command, "--metric", "relative_error", "--fresh", "--output", "other.onnx"]
    assert main([*error, "--tolerable-loss", "0.5"]) == 0
    assert (
        "criterion: at most 0.5 absolute loss, lower is better"
        in capsys.readouterr().out.replace("(at", "criterion: at")
    )
    assert main([*error, "--criterion", "relative"]) == 2
    assert "--criterion absolute" in capsys.readouterr().err
    assert main([*command, "--metric", "agrement"]) == 2
    assert "Did you mean 'agreement'?" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_number_has_no_angle(shape: tuple[int, ...]) -> None:
    one = np.ones(shape, np.float32)
    with pytest.raises(ValueError, match=r"one number has no angle.*Use 'relative_error'"):
        cosine(0.5 * one, one)
    with pytest.raises(ValueError, match=r"at least two classes.*: use 'relative_error'\.$"):
        predicted_classes(one)
