"""Keeping a part of the data aside: which samples, and that a continued study keeps the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest

from optuna_quant.cli.parser import main
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.holdout_split import as_fraction
from optuna_quant.evaluation.holdout_split import split_holdout
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


SAMPLES = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with data, of which FP32 is mostly right."""
    folder = tmp_path_factory.mktemp("material")
    model = onnx_models.convnet()
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    x = onnx_models.samples(SAMPLES, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    labels = scores.argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % scores.shape[1]
    np.savez(folder / "calib.npz", x=x[:20])
    np.savez(folder / "data.npz", x=x, labels=labels)
    (folder / "evaluate.py").write_text("def evaluate(session):\n    return 1.0\n")
    return folder


def tune_in(folder: Path, holdout: Any = 0.3, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "calibration_data": folder / "calib.npz",
        "data": folder / "data.npz",
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.1),
        "tuning_criterion": TuningCriterion(objective="ops"),
    }
    return tune(folder / "net.onnx", holdout=holdout, **given | kwargs)


# Which samples.


def numbered(samples: int) -> DataEvaluation:
    """Data whose labels are the numbers of the samples."""
    return DataEvaluation({"x": np.zeros((samples, 1), np.float32), "labels": np.arange(samples)})


def members(evaluation: DataEvaluation) -> list[int]:
    """The numbers of the samples of a part of :func:`numbered` data."""
    from optuna_quant.data.inputs import InputSpec

    spec = InputSpec("x", np.dtype("float32"), (None, 1))
    _, labels = evaluation._data.batch(np.arange(evaluation.samples), [spec])
    return [int(label) for label in labels]


def test_each_sample_is_on_one_side() -> None:
    searched, aside, split = split_holdout(numbered(100), 0.3, seed=4)
    assert (searched.samples, aside.samples) == (70, 30)
    assert sorted(members(searched) + members(aside)) == list(range(100))
    assert members(aside) == sorted(members(aside)) != list(range(70, 100))
    assert (split.fraction, split.seed, split.samples) == (0.3, 4, 100)
    again = split_holdout(numbered(100), 0.3, seed=4)
    assert members(again[1]) == members(aside)
    assert again[2] == split
    other = split_holdout(numbered(100), 0.3, seed=5)
    assert members(other[1]) != members(aside)
    assert other[2].digest != split.digest


def test_every_sample_is_as_likely_as_any_other() -> None:
    searches = 400
    counts = np.zeros(20)
    for seed in range(searches):
        counts[members(split_holdout(numbered(20), 0.25, seed=seed)[1])] += 1
    # Each is binomial with 400 draws and a chance of a quarter: five standard deviations.
    assert np.abs(counts - 100).max() < 5 * (searches * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(("holdout", "fraction"), [(0.3, 0.3), (np.float32(0.5), 0.5)])
def test_numbers_are_parts(holdout: Any, fraction: float) -> None:
    assert as_fraction(holdout) == pytest.approx(fraction)


@pytest.mark.parametrize("holdout", ["x.npz", {"x": 1}, None, True, len])
def test_other_things_are_samples(holdout: Any) -> None:
    assert as_fraction(holdout) is None


@pytest.mark.parametrize("holdout", [0, 1, 30, -0.1, 1.0, float("nan")])
def test_what_is_no_part_is_an_error(holdout: float) -> None:
    with pytest.raises(ValueError, match=r"holdout=.*: as a number it is the part of the data"):
        as_fraction(holdout)


def test_both_sides_need_a_sample() -> None:
    with pytest.raises(
        ValueError, match=r"holdout=0.01 of 20 samples keeps 0 aside and leaves 20"
    ):
        split_holdout(numbered(20), 0.01, seed=0)
    with pytest.raises(
        ValueError, match=r"holdout=0.99 of 20 samples keeps 20 aside and leaves 0"
    ):
        split_holdout(numbered(20), 0.99, seed=0)
    with pytest.raises(ValueError, match="with evaluate there are no data to divide"):
        split_holdout(len, 0.3, seed=0)


# The search.


def test_search_sees_the_rest_and_the_holdout_is_of_the_others(folder: Path) -> None:
    result = tune_in(folder)
    assert result.met
    data = np.load(folder / "data.npz")
    searched, aside, _ = split_holdout(DataEvaluation(folder / "data.npz"), 0.3, seed=0)
    chosen = members_by_labels(data, aside)
    session = result.model().session
    right = session.run(None, {"x": data["x"]})[0].argmax(axis=1) == data["labels"]
    fp32 = onnx_models.run(onnx_models.convnet(), {"x": data["x"]})[0].argmax(axis=1)
    assert result.metric == pytest.approx(np.delete(right, chosen).mean())
    assert result.holdout is not None
    assert result.holdout.samples == 120
    assert result.holdout.metric == pytest.approx(right[chosen].mean())
    assert result.holdout.baseline == pytest.approx((fp32 == data["labels"])[chosen].mean())
    assert result.holdout.loss_interval is not None
    lines = str(result).splitlines()
    (held_out,) = [line for line in lines if line.startswith("hold-out (120 samples): metric ")]
    assert "(95% confidence: " in held_out
    assert any(line.startswith("metric ") for line in lines[lines.index(held_out) :])
    assert searched.samples == 280


def members_by_labels(data: Any, part: DataEvaluation) -> list[int]:
    """Which samples a part of the data holds, found by their inputs."""
    from optuna_quant.data.inputs import InputSpec

    spec = InputSpec("x", np.dtype("float32"), (None, 2, 8, 8))
    feed, _ = part._data.batch(np.arange(part.samples), [spec])
    where = {sample.tobytes(): i for i, sample in enumerate(data["x"])}
    return [where[sample.tobytes()] for sample in feed["x"]]


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_continued_study_keeps_the_same_aside(folder: Path, tmp_path: Path, stopping: str) -> None:
    storage = str(tmp_path / "journal")
    first = tune_in(folder, storage=storage, early_stopping=stopping)
    again = tune_in(folder, storage=storage, early_stopping=stopping)
    assert len(again.study.trials) == len(first.study.trials)
    assert again.holdout == first.holdout
    began = "was started with holdout=0.3 with the seed 0, drawn from 400 samples, but here "
    for changed, now in (
        ({"holdout": 0.4}, "it is holdout=0.4 with the seed 0"),
        ({"seed": 1}, "it is holdout=0.3 with the seed 1"),
        ({"holdout": None}, "none is kept aside"),
    ):
        with pytest.raises(ValueError, match=f"{began}{now}.*another study name or storage"):
            tune_in(folder, **{"storage": storage, "early_stopping": stopping, **changed})


def test_study_without_a_holdout_does_not_get_one(folder: Path, tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    tune_in(folder, None, storage=storage)
    with pytest.raises(ValueError, match="was started without a hold-out part, but here it is"):
        tune_in(folder, storage=storage)
    # Other samples, which the search does not see, change nothing.
    data = dict(np.load(folder / "data.npz"))
    result = tune_in(folder, data, storage=storage)
    assert result.holdout is not None


def test_batches_are_divided_by_their_samples(folder: Path) -> None:
    data = dict(np.load(folder / "data.npz"))
    batches = [(data["x"][i : i + 50], data["labels"][i : i + 50]) for i in range(0, 400, 50)]
    whole, parts = tune_in(folder, data=(data["x"], data["labels"])), tune_in(folder, data=batches)
    assert parts.holdout is not None
    assert parts.holdout.samples == 120
    assert (parts.metric, parts.holdout) == (whole.metric, whole.holdout)


def test_function_has_nothing_to_divide(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"holdout=0.3 keeps a part of data aside, but with eval"):
        tune_in(folder, data=None, evaluate=lambda session: 1.0)


# The command line.


@pytest.fixture
def command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    base = ["tune", "net.onnx", "--calibration", "calib.npz", "--tolerable-loss", "0.1"]
    base += ["--objective", "ops", "--no-gain"]
    return lambda *args: main([*base, *args])


def test_command_line_takes_a_part(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    part = ["--data", "data.npz", "--holdout", "0.3", "--no-gain"]
    assert command(*part) == 0
    out = capsys.readouterr().out
    assert "\nhold-out (120 samples): metric " in out
    # The same command continues.
    assert command(*part) == 0
    assert capsys.readouterr().out == out
    assert out.splitlines()[1] == str(tune_in(folder)).splitlines()[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "data.npz", "--holdout", "30"], "holdout=30.0: as a number it is the part of"),
        (["--data", "data.npz", "--holdout", "30%"], "there is no file '30%'"),
        (["--evaluate", "evaluate.py", "--holdout", "0.3"], "no data to divide"),
    ],
)
def test_command_line_says_what_is_wrong(
    args: list[str],
    message: str,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(*args) == 2
    assert message in capsys.readouterr().err
