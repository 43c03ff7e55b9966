"""The hold-out set, and the interval of the loss in the result."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import numpy as np
import onnx_models
import optuna
import pytest

from optuna_quant.cli.parser import main
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.sequential.interval import loss_interval
from optuna_quant.study import record
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.errors import TuningInterrupted
from optuna_quant.tuning.holdout import check_other_data
from optuna_quant.tuning.interval import recorded_interval
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.05, "c": 0.3}


def evaluate(model: FakeModel) -> float:
    return model.accuracy


def tune_fake(holdout: Any, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {"evaluate": evaluate, "accuracy_criterion": TOLERANT}
    return tune(backend=FakeBackend(DAMAGE), holdout=holdout, **given | kwargs)


class Samples:
    """As many of 500 samples are right as the fake model's accuracy says, less a bias."""

    samples = 500

    def __init__(self, bounds: tuple[float, float] | None = (0.0, 1.0), bias: float = 0.0) -> None:
        self.bounds = bounds
        self.bias = bias
        self.models: list[FakeModel] = []

    def __call__(self, model: FakeModel) -> float:
        return float(np.concatenate(list(self.scores(model, np.arange(self.samples)))).mean())

    def scores(self, model: FakeModel, indices: np.ndarray) -> Iterator[np.ndarray]:
        self.models.append(model)
        bias = self.bias if model.config.quantized_ops else 0.0
        for some in np.array_split(indices, 4):
            yield (some < (model.accuracy - bias) * self.samples).astype(np.float64)

    def scores_and_margins(
        self, model: FakeModel, indices: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for some in self.scores(model, indices):
            yield some, None


# What is in the result.


def test_holdout_says_what_the_model_is_worth_elsewhere() -> None:
    result = tune_fake(lambda model: model.accuracy - 0.08 * bool(model.config.quantized_ops))
    assert result.met
    assert result.loss == pytest.approx(0.05)
    assert result.loss_interval is None
    found = result.holdout
    assert found is not None
    assert found.metric == pytest.approx(0.77)
    assert found.baseline == 0.9
    assert found.loss == pytest.approx(0.13)
    assert not found.met
    assert found.loss_interval is None
    assert found.samples is None
    assert result.holdout_missing is None
    headline, line = str(result).splitlines()[:2]
    assert headline.endswith("on the samples of the search, but NOT on the hold-out set:")
    assert line == "hold-out: metric 0.77, FP32 0.9, loss 0.13: NOT met there"
    with pytest.raises(FrozenInstanceError):
        found.met = True  # type: ignore[misc]


def test_holdout_of_samples_has_an_interval() -> None:
    result = tune_fake(Samples())
    found = result.holdout
    assert found is not None
    assert found.met
    assert found.samples == 500
    assert found.loss == pytest.approx(0.05)
    assert found.loss_interval is not None
    low, high = found.loss_interval
    assert 0 < low < 0.05 < high < 0.1
    assert (
        f"hold-out (500 samples): metric 0.85, FP32 0.9, loss 0.05 (95% confidence: {low:.4g} to "
        f"{high:.4g}): met there"
    ) in str(result).splitlines()


def test_holdout_of_data_goes_with_a_function() -> None:
    result = tune_fake(DataEvaluation(fake_data(500)))
    assert result.holdout is not None
    assert result.holdout.samples == 500
    assert (result.holdout.metric, result.holdout.baseline) == (0.85, 0.9)


def test_samples_without_bounds_have_no_interval() -> None:
    found = tune_fake(Samples(bounds=None)).holdout
    assert found is not None
    assert found.samples == 500
    assert found.metric == pytest.approx(0.85)
    assert found.loss_interval is None


def test_loss_is_relative_if_the_criterion_is() -> None:
    criterion = AccuracyCriterion(tolerable_loss=0.2)
    result = tune_fake(Samples(), accuracy_criterion=criterion)
    found = result.holdout
    assert found is not None
    assert found.loss == pytest.approx(1 - found.metric / found.baseline)
    assert "hold-out (500 samples): " in str(result)
    assert "% confidence: " in str(result)


def test_each_model_is_evaluated_once_and_at_the_end() -> None:
    events: list[str] = []

    def searched(model: FakeModel) -> float:
        events.append("search")
        return model.accuracy

    def held_out(model: FakeModel) -> float:
        events.append("FP32" if not model.config.quantized_ops else "found")
        return model.accuracy

    tuning = TuningCriterion(timeout=None)
    result = tune_fake(held_out, evaluate=searched, tuning_criterion=tuning)
    assert events[-2:] == ["FP32", "found"]
    assert set(events[:-2]) == {"search"}
    assert result.holdout is not None


def test_holdout_decides_nothing() -> None:
    without = tune_fake(None)
    with_bad = tune_fake(Samples(bias=0.5))
    assert without.holdout is None
    assert without.holdout_missing is None
    assert "hold-out" not in str(without)
    assert with_bad.met
    assert with_bad.config == without.config
    assert len(with_bad.study.trials) == len(without.study.trials)
    assert with_bad.holdout is not None
    assert not with_bad.holdout.met


def test_closest_model_is_evaluated_as_well() -> None:
    strict = AccuracyCriterion(criterion="absolute", tolerable_loss=0.0)
    samples = Samples()
    result = tune_fake(samples, accuracy_criterion=strict)
    assert not result.met
    assert result.holdout is not None
    assert samples.models[1].config == result.config
    assert not result.holdout.met


# What goes wrong with it.


def raising(error: BaseException) -> Callable[[Any], float]:
    def holdout(model: Any) -> float:
        raise error

    return holdout


@pytest.mark.parametrize(
    ("holdout", "reason"),
    [
        (raising(RuntimeError("no disk")), "RuntimeError: no disk"),
        (lambda model: None, "ValueError: The evaluation of the hold-out set returned None"),
        (lambda model: float("nan"), "ValueError: The evaluation of the hold-out set returned N"),
        (lambda model: float("-inf"), "ValueError: The metric of the FP32 model must be finite"),
    ],
)
def test_what_goes_wrong_does_not_lose_the_result(
    holdout: Any, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    result = tune_fake(holdout, output=output)
    assert result.met
    assert result.holdout is None
    assert result.holdout_missing is not None
    assert result.holdout_missing.startswith(reason)
    assert f"hold-out: not evaluated ({reason}" in str(result)
    assert f"There is no result of the hold-out set: {reason}" in caplog.text
    assert output.exists()


def test_relative_loss_against_zero_is_said() -> None:
    relative = AccuracyCriterion(tolerable_loss=0.2)
    result = tune_fake(lambda model: 0.0, accuracy_criterion=relative)
    assert result.met
    assert "a loss relative to 0 is not defined" in str(result.holdout_missing)


def test_interrupted_search_leaves_it_out() -> None:
    counting, seen = CountingEvaluation(), Samples()

    def interrupted(model: FakeModel) -> float:
        if len(counting.seen) == 2:
            raise KeyboardInterrupt
        return counting(model)

    with pytest.raises(TuningInterrupted) as caught:
        tune_fake(seen, evaluate=interrupted)
    result = caught.value.result
    assert result.stopped_because == "interrupted"
    assert result.holdout is None
    assert result.holdout_missing == "the search was interrupted"
    assert seen.models == []


def test_without_a_model_there_is_none() -> None:
    def broken(model: FakeModel) -> float:
        if model.config.quantized_ops:
            raise RuntimeError("broken")
        return model.accuracy

    result = tune_fake(Samples(), evaluate=broken, tuning_criterion=TuningCriterion(max_trials=2))
    assert result.config is None
    assert result.holdout_missing == "no quantized model was evaluated"


# What is given.


def test_holdout_must_be_something_else(tmp_path: Path) -> None:
    counting = CountingEvaluation()
    with pytest.raises(ValueError, match="holdout and evaluate are the same: .* other samples"):
        tune_fake(counting, evaluate=counting)
    assert counting.seen == []
    x, y = np.zeros((4, 2)), np.zeros(4)
    with pytest.raises(ValueError, match="holdout and data are the same"):
        tune_fake({"x": x, "y": y}, evaluate=None, data={"x": x, "y": y})
    path = tmp_path / "data.npz"
    np.savez(path, x=x, y=y)
    with pytest.raises(ValueError, match=r"holdout and data are the same \('.*data.npz'\)"):
        tune_fake(tmp_path / "." / "data.npz", evaluate=None, data=str(path))


def test_same_method_is_the_same() -> None:
    samples = Samples()
    with pytest.raises(ValueError, match="are the same"):
        check_other_data(samples.__call__, samples.__call__, what="evaluate")
    check_other_data(Samples().__call__, samples.__call__, what="evaluate")
    check_other_data({"x": np.zeros(3)}, {"x": np.zeros(3)}, what="data")
    check_other_data("a.npz", {"x": np.zeros(3)}, what="data")
    check_other_data("a.npz", "b.npz", what="data")


def test_holdout_must_be_of_the_same_kind() -> None:
    with pytest.raises(TypeError, match=r"must be a second function.*got 'hold.npz'"):
        tune_fake("hold.npz")
    with pytest.raises(TypeError, match="Evaluation data must be"):
        tune_fake(object(), evaluate=None, data={"x": np.zeros((4, 2)), "y": np.zeros(4)})


# With a real model.


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with data, of which FP32 is mostly right."""
    folder = tmp_path_factory.mktemp("material")
    model = onnx_models.convnet()
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    x = onnx_models.samples(900, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    labels = scores.argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % scores.shape[1]
    np.savez(folder / "calib.npz", x=x[:20])
    np.savez(folder / "data.npz", x=x[:600], labels=labels[:600])
    np.savez(folder / "hold.npz", x=x[600:], labels=labels[600:])
    np.savez(folder / "bad.npz", x=x[600:, :, :4], labels=labels[600:])
    (folder / "evaluate.py").write_text(
        "import os\nimport numpy as np\n"
        "def _of(session, name):\n"
        "    d = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), name))\n"
        "    return (session.run(None, {'x': d['x']})[0].argmax(axis=1) == d['labels']).mean()\n"
        "def searched(session):\n    return _of(session, 'data.npz')\n"
        "def held_out(session):\n    return _of(session, 'hold.npz')\n"
    )
    return folder


def tune_real(folder: Path, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "calibration_data": folder / "calib.npz",
        "data": folder / "data.npz",
        "holdout": folder / "hold.npz",
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.1),
        "tuning_criterion": TuningCriterion(objective="ops"),
    }
    return tune(folder / "net.onnx", **given | kwargs)


def test_data_have_intervals(material: Path) -> None:
    result = tune_real(material)
    assert result.met
    assert result.metric is not None
    assert result.baseline is not None
    assert result.loss is not None
    assert result.loss_interval is not None
    low, high = result.loss_interval
    assert low <= result.loss <= high < 0.1
    assert f"({result.criterion})" not in str(result)
    assert f"% confidence: {100 * low:.3g}% to {100 * high:.3g}%), criterion: at most" in str(
        result
    )
    assert result.holdout is not None
    assert result.holdout.samples == 300
    assert result.holdout.loss_interval is not None
    assert (
        result.holdout.loss_interval[0] <= result.holdout.loss <= result.holdout.loss_interval[1]
    )


def test_interval_is_of_the_samples_in_the_order_of_the_data(material: Path) -> None:
    result = tune_real(material, holdout=None)
    data = DataEvaluation(material / "data.npz")
    models = [result.model(), result.backend.quantize(result.space.fp32())]
    candidate, baseline = (
        np.concatenate(list(data.scores(m.session, np.arange(600)))) for m in models
    )
    assert result.models_compared == len(
        {t.user_attrs["fingerprint"] for t in result.study.trials[1:]}
    )
    assert result.loss_interval == loss_interval(
        candidate,
        baseline,
        bounds=(0.0, 1.0),
        higher_is_better=True,
        relative=True,
        confidence=0.95 if result.models_compared == 1 else 1 - 0.05 / result.models_compared,
    )


def test_continued_study_has_the_interval(material: Path, tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    first = tune_real(material, storage=storage)
    again = tune_real(material, storage=storage)
    assert len(again.study.trials) == len(first.study.trials)
    assert again.loss_interval == first.loss_interval
    assert again.holdout == first.holdout


def test_model_that_was_evaluated_before_has_its_interval(
    material: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = tune_real(material, holdout=None)
    study, trial = first.study, first.trial
    assert trial is not None
    before = len(study.trials)
    study.add_trial(
        optuna.trial.create_trial(
            value=trial.values[0],
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={record.REUSED_FROM: trial.number},
        )
    )
    duplicate = study.trials[before]
    models = first.models_compared
    assert (
        recorded_interval(study, duplicate, first.criterion, models=models) == first.loss_interval
    )

    def other_order(study: optuna.Study) -> None:
        raise ValueError("Another order.")

    monkeypatch.setattr("optuna_quant.tuning.interval.read_population", other_order)
    assert recorded_interval(study, duplicate, first.criterion, models=models) is None
    assert "The loss has no confidence interval. Another order." in caplog.text


def test_metric_without_bounds_has_no_interval(material: Path) -> None:
    x = np.load(material / "data.npz")["x"][:60]
    (scores,) = onnx_models.run(onnx_models.convnet(), {"x": x})
    result = tune_real(
        material,
        metric="mae",
        data={"x": x[:40], "labels": scores[:40] + 1},
        holdout={"x": x[40:], "labels": scores[40:] + 1},
        accuracy_criterion=AccuracyCriterion(higher_is_better=False, tolerable_loss=0.5),
    )
    assert result.met
    assert result.loss_interval is None
    assert result.holdout is not None
    assert result.holdout.samples == 20
    assert result.holdout.loss_interval is None
    assert "confidence" not in str(result)


def test_data_of_the_holdout_are_checked_before_the_search(material: Path) -> None:
    with pytest.raises(ValueError, match="'x': the evaluation data .*bad.npz"):
        tune_real(material, holdout=material / "bad.npz")


# The command line.


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in material.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = [
    "tune",
    "net.onnx",
    "--objective",
    "ops",
    "--calibration",
    "calib.npz",
    "--tolerable-loss",
    "0.1",
]
DATA = [*BASE, "--data", "data.npz"]
FUNCTION = [*BASE, "--evaluate", "evaluate.py:searched"]


def test_command_line_with_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DATA, "--holdout", "hold.npz"]) == 0
    out = capsys.readouterr().out
    assert "hold-out (300 samples): metric " in out
    assert out.count("95% confidence") == 2


def test_command_line_with_a_function(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FUNCTION, "--holdout", "evaluate.py:held_out"]) == 0
    out = capsys.readouterr().out
    assert "hold-out: metric " in out
    assert "confidence" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*DATA, "--holdout", "data.npz"], "holdout and data are the same ('data.npz')"),
        ([*DATA, "--holdout", "none.npz"], "--holdout: there is no file 'none.npz'"),
        ([*DATA, "--holdout", "hold.npz", "--output", "hold.npz"], "is the hold-out file itself"),
        (
            [*FUNCTION, "--holdout", "./evaluate.py:searched"],
            "--holdout and --evaluate are the same function",
        ),
        ([*FUNCTION, "--holdout", "evaluate.py:none"], "--holdout: 'evaluate.py' has no function"),
        ([*FUNCTION, "--holdout", "hold.npz"], "--holdout: 'hold.npz' is not a Python file"),
    ],
)
def test_command_line_says_what_is_wrong(
    args: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert message in capsys.readouterr().err
