"""Models whose results depend on the batch: how they are evaluated, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
import warnings

from fake_backend import FakeBackend
import numpy as np
import onnx
from onnx import helper
import onnx_models
import pytest

from optuna_quant.backends.onnxruntime.model.batch_dependence import quantizes_at_run_time
from optuna_quant.cli.parser import main
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.labelled import SampleMetric
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


SAMPLES = 300
CRITERION = AccuracyCriterion(tolerable_loss=0.2)
ALONE = (
    "evaluated one sample at a time, because the ranges of dynamic quantization are those of a "
    "batch"
)


def mlp(samples: str | int = "N") -> onnx.ModelProto:
    """MatMul, Tanh, MatMul: input ``x`` of (N, 16)."""
    m = onnx_models.Maker()
    x = m.input("x", [samples, 16])
    hidden = m.node("Tanh", [m.node("MatMul", [x, m.weight(16, 32)])])
    return m.model([m.node("MatMul", [hidden, m.weight(32, 4)])])


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """Samples of which a few are much louder than the others; FP32 is right on all."""
    x = onnx_models.samples(SAMPLES, 16)
    x[::25] *= 60
    (scores,) = onnx_models.run(mlp(), {"x": x})
    return {"x": x, "labels": scores.argmax(axis=1)}


def tune_on(some: dict[str, np.ndarray], /, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "calibration_data": {"x": some["x"]},
        "data": some,
        "approach": "dynamic",
        "accuracy_criterion": CRITERION,
        "tuning_criterion": TuningCriterion(objective="ops"),
        "measure_gain": False,
    }
    return tune(kwargs.pop("model", None) or mlp(), **given | kwargs)


def accuracy(result: TuningResult, data: dict[str, np.ndarray], size: int) -> float:
    """What anyone gets who runs the model in batches of a size, in the order of the data."""
    session = result.model().session
    outputs = [
        session.run(None, {"x": data["x"][start : start + size]})[0]
        for start in range(0, SAMPLES, size)
    ]
    return float((np.concatenate(outputs).argmax(axis=1) == data["labels"]).mean())


def reported(result: TuningResult) -> float:
    assert result.met
    assert result.metric is not None
    return result.metric


# One sample at a time.


def test_the_metric_is_that_of_single_samples(data: dict[str, np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = tune_on(data)
    alone, together = accuracy(result, data, 1), accuracy(result, data, SAMPLES)
    assert reported(result) == pytest.approx(alone)
    assert together < alone - 0.02  # Here it matters.
    assert ALONE in str(result).splitlines()
    assert result.batches is not None
    assert result.batches.size == 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_the_order_of_the_data_does_not_matter(
    data: dict[str, np.ndarray], stopping: str, threads: int
) -> None:
    order = np.random.default_rng(0).permutation(SAMPLES)
    mixed = {name: array[order] for name, array in data.items()}
    given = {"early_stopping": stopping, "evaluation_threads": threads}
    results = [tune_on(some, **given) for some in (data, mixed)]
    assert reported(results[0]) == pytest.approx(reported(results[1]))
    assert results[0].config == results[1].config


def test_static_models_run_in_batches(data: dict[str, np.ndarray]) -> None:
    result = tune_on(data, approach="static")
    assert reported(result) == pytest.approx(accuracy(result, data, 64))
    assert result.batches is None
    assert "at a time" not in str(result)


class Counting:
    """A session that writes down the sizes of the batches that it runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.sizes: list[int] = []

    def run(self, names: Any, feed: dict[str, np.ndarray]) -> Any:
        self.sizes.append(len(feed["x"]))
        return self._session.run(names, feed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.mark.parametrize(
    ("batch_size", "depends", "sizes"),
    [(None, True, {1}), (None, False, {64, 44}), (50, True, {50}), (50, False, {50})],
)
def test_sizes_of_batches(
    data: dict[str, np.ndarray], batch_size: int | None, depends: bool, sizes: set[int]
) -> None:
    import onnxruntime

    model = Counting(onnxruntime.InferenceSession(mlp().SerializeToString()))
    model.depends_on_batch = depends  # type: ignore[attr-defined]
    model.session = model  # type: ignore[attr-defined]
    evaluation = DataEvaluation(data, batch_size=batch_size)
    assert evaluation(model) == 1.0
    assert set(model.sizes) == sizes
    assert evaluation.runs.batch_size_for(model) == max(sizes)


# Batches that somebody has asked for.


def test_a_batch_size_that_is_given_is_kept_and_warned_of(data: dict[str, np.ndarray]) -> None:
    with pytest.warns(UserWarning, match=r"holds for batches of 60 .* Leave batch_size out"):
        result = tune_on(data, batch_size=60, early_stopping="off")
    assert reported(result) == pytest.approx(accuracy(result, data, 60))
    assert "the metric holds for batches of 60 in the order of the evaluation" in str(result)


def test_a_model_with_a_batch_size_of_its_own(data: dict[str, np.ndarray]) -> None:
    with pytest.warns(UserWarning, match=r"holds for batches of 20 .* the model was exported"):
        result = tune_on(data, model=mlp(20), early_stopping="off")
    assert reported(result) == pytest.approx(accuracy(result, data, 20))
    assert result.batches is not None
    assert result.batches.size == 20


def test_a_function_runs_the_batches_that_it_likes(data: dict[str, np.ndarray]) -> None:
    def evaluate(session: Any) -> float:
        (scores,) = session.run(None, {"x": data["x"]})
        return float((scores.argmax(axis=1) == data["labels"]).mean())

    result = tune_on(data, data=None, evaluate=evaluate)
    assert reported(result) == pytest.approx(accuracy(result, data, SAMPLES))
    assert "the metric holds for the batches that evaluate runs, because the ranges" in str(result)


def test_continued_study_keeps_the_size(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    first = tune_on(data, storage=storage)
    assert str(tune_on(data, storage=storage)) == str(first)
    with (
        pytest.warns(UserWarning, match="batches of 30"),
        pytest.raises(ValueError, match=r"were evaluated in batches of 1, but here .* of 30"),
    ):
        tune_on(data, storage=storage, batch_size=30)
    static = str(tmp_path / "static")
    before = tune_on(data, approach="static", storage=static)
    # What does not depend on it may be evaluated in any batches.
    after = tune_on(data, approach="static", storage=static, batch_size=7)
    assert after.metric == before.metric


def test_an_edited_metric_is_held_against_the_same_batches(
    data: dict[str, np.ndarray], tmp_path: Path
) -> None:
    def right(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return output.argmax(axis=1) == labels

    def edited(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.equal(output.argmax(axis=1), labels)

    given: dict[str, Any] = {
        "batch_size": 40,
        "storage": str(tmp_path / "journal"),
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.4),
    }
    results = []
    for score in (right, edited):
        metric = SampleMetric(name="right", score=score, bounds=(0, 1))
        with pytest.warns(UserWarning, match="batches of 40"):
            results.append(tune_on(data, metric=metric, **given))
    assert reported(results[0]) == reported(results[1])
    assert len(results[0].study.trials) == len(results[1].study.trials)


def test_study_of_an_earlier_version_is_refused(
    data: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = str(tmp_path / "journal")
    with monkeypatch.context() as earlier:
        earlier.setattr("optuna_quant.tuning.opening.check_batches", lambda study, batches: None)
        tune_on(data, storage=storage)
    with pytest.raises(ValueError, match="in larger batches, by an earlier version, but here"):
        tune_on(data, storage=storage)


def test_command_line(
    data: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(mlp().SerializeToString())
    np.savez("data.npz", **data)
    command = [
        "tune",
        "net.onnx",
        "--objective",
        "ops",
        "--approach",
        "dynamic",
        "--data",
        "data.npz",
        "--fresh",
    ]
    command += ["--tolerable-loss", "0.2", "--quiet"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert ALONE in said.out.splitlines()
    assert said.err == ""
    assert main([*command, "--batch-size", "60"]) == 0
    assert (
        "optuna-quant: warning: For a model with dynamic quantization" in capsys.readouterr().err
    )


# Models that depend on the batch in FP32 already.


def test_fp32_that_depends_on_the_batch_is_warned_of(data: dict[str, np.ndarray]) -> None:
    m = onnx_models.Maker()
    x = m.input("x", ["N", 16])
    middle = m.node("ReduceMean", [x], axes=[0], keepdims=1)
    hidden = m.node("Relu", [m.node("MatMul", [m.node("Sub", [x, middle]), m.weight(16, 32)])])
    model = m.model([m.node("MatMul", [hidden, m.weight(32, 4)])])
    labels = onnx_models.run(model, {"x": data["x"]})[0].argmax(axis=1)
    given = {"model": model, "approach": "static", "data": {"x": data["x"], "labels": labels}}
    with pytest.warns(UserWarning, match=r"depends on the rest of its batch.* batches of 64"):
        tune_on(data, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tune_on(data, **given, batch_size=1)


def test_other_backends_say_nothing_of_batches() -> None:
    result = tune(backend=FakeBackend(2), evaluate=lambda model: model.accuracy)
    assert result.met
    assert result.batches is None


# What a model says of itself.


def test_dynamic_quantization_is_found_wherever_it_is() -> None:
    def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, "graph", [], [])

    def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
        return helper.make_model(graph(*nodes))

    quantize = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    lstm = helper.make_node("DynamicQuantizeLSTM", ["x"], ["y"], domain="com.microsoft")
    branches = {"then_branch": graph(quantize), "else_branch": graph()}
    assert quantizes_at_run_time(model(quantize))
    assert quantizes_at_run_time(model(lstm))
    assert quantizes_at_run_time(model(helper.make_node("If", ["c"], ["y"], **branches)))
    static = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    assert not quantizes_at_run_time(model(static))
    assert not quantizes_at_run_time(mlp())
