"""Two models beside each other, by function and by command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
from fake_backend import fake_data
import numpy as np
import onnx
import onnx_models
from onnx_models import Maker
from onnx_models import samples
import pytest

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli.parser import main
from optuna_quant.costs.model_pair import BuiltPair
from optuna_quant.data.inputs import InputSpec


X = samples(40, 2, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, the same quantized, and data with the model's own answers as labels."""
    folder = tmp_path_factory.mktemp("compare")
    model = onnx_models.convnet()
    onnx.save(model, folder / "a.onnx")
    backend = OnnxRuntimeBackend(model, calibration_data=X)
    backend.quantize(backend.tuning_space().default()).save(folder / "b.onnx")
    (scores,) = onnx_models.run(model, {"x": X})
    np.savez(folder / "eval.npz", x=X, labels=scores.argmax(1))
    np.savez(folder / "calib.npz", x=X)
    return folder


def compared(folder: Path, **options: Any) -> optuna_quant.costs.comparison.Comparison:
    return optuna_quant.compare(
        folder / "a.onnx", folder / "b.onnx", threads=1, rounds=5, **options
    )


def test_a_model_is_compared_with_its_quantized_form(folder: Path) -> None:
    found = compared(folder, data=folder / "eval.npz", batch=4)
    assert found.first.nbytes == (folder / "a.onnx").stat().st_size
    assert found.second.nbytes == (folder / "b.onnx").stat().st_size
    assert (found.metric, found.higher_is_better) == ("accuracy", True)
    assert found.first.metric == 1.0
    assert found.second.metric is not None
    assert 0.5 < found.second.metric <= 1.0
    assert (found.batch, found.rounds, found.inputs) == (4, 5, "evaluation data")
    (output,) = found.outputs
    assert output.relative_error is not None
    assert 0 < output.relative_error < 0.2
    # On the same samples, whose labels are the first model's classes.
    assert found.samples == len(X)
    assert output.agreement == pytest.approx(found.second.metric)
    assert found.ratio.low <= found.ratio.value <= found.ratio.high


def test_the_same_model_agrees_with_itself(folder: Path) -> None:
    found = optuna_quant.compare(folder / "a.onnx", folder / "a.onnx", rounds=3)
    (output,) = found.outputs
    assert (output.relative_error, output.agreement) == (0.0, 1.0)
    assert found.inputs == "random inputs"
    assert "relative error 0 (1 sample)" in str(found)
    assert found.first.metric is None
    assert found.first.nbytes == found.second.nbytes


def test_outputs_on_random_inputs_are_not_shown_as_if_they_were_data(folder: Path) -> None:
    found = compared(folder)
    assert found.outputs[0].relative_error
    assert "relative error" not in str(found)
    assert "output  not compared: on random inputs models differ more than on real" in str(found)
    assert "(--data, --calibration)" in str(found)


def test_agreement_with_the_first_model_is_a_metric(folder: Path) -> None:
    found = compared(folder, data={"x": X}, metric="relative_error")
    assert found.first.metric == 0.0
    assert found.second.metric is not None
    assert found.second.metric > 0


def test_external_data_count(tmp_path: Path) -> None:
    model = onnx_models.convnet()
    onnx.save(model, tmp_path / "one.onnx")
    onnx.save(
        model,
        tmp_path / "two.onnx",
        save_as_external_data=True,
        location="two.data",
        size_threshold=0,
    )
    found = optuna_quant.compare(tmp_path / "one.onnx", tmp_path / "two.onnx", rounds=1)
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert found.second.nbytes >= (tmp_path / "two.onnx").stat().st_size + weights
    (output,) = found.outputs
    assert output.relative_error == 0.0


def saved(tmp_path: Path, name: str, shape: list[int | str], input_name: str = "x") -> Path:
    m = Maker()
    x = m.input(input_name, shape)
    path = tmp_path / name
    onnx.save(m.model([m.node("Relu", [x])]), path)
    return path


def test_models_with_other_inputs_are_refused(tmp_path: Path) -> None:
    a = saved(tmp_path, "a.onnx", ["N", 4])
    b = saved(tmp_path, "b.onnx", ["N", 4], "y")
    c = saved(tmp_path, "c.onnx", ["N", 5])
    with pytest.raises(ValueError, match=r"different inputs: only .*a.onnx' has 'x'"):
        optuna_quant.compare(a, b)
    with pytest.raises(ValueError, match=r"different inputs: 'x' is .*, 4\) in .*, 5\) in"):
        optuna_quant.compare(a, c)


def test_an_axis_without_a_size_needs_data(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.onnx", ["N", "L"])
    with pytest.raises(
        ValueError, match=r"Random inputs cannot be made for 'x'.*axis 1.*give data"
    ):
        optuna_quant.compare(path, path)
    found = optuna_quant.compare(path, path, calibration_data=samples(6, 3), rounds=1, batch=2)
    assert (found.inputs, found.batch, found.samples) == ("calibration data", 2, 6)


@pytest.mark.parametrize("option", ["batch", "rounds", "samples", "threads"])
def test_numbers_out_of_range_are_refused(folder: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be a positive integer, but got 0"):
        optuna_quant.compare(folder / "a.onnx", folder / "b.onnx", **{option: 0})


def test_a_metric_needs_data(folder: Path) -> None:
    with pytest.raises(ValueError, match="metric needs data"):
        compared(folder, metric="accuracy")


def command(*words: object) -> int:
    return main(["compare", *map(str, words), "--threads", "1", "--rounds", "3"])


def test_the_command_shows_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder / "eval.npz"
    assert command(folder / "a.onnx", folder / "b.onnx", "--data", data) == 0
    said = capsys.readouterr().out
    for word in (
        "time    b.onnx ",
        ", a.onnx ",
        "size    b.onnx ",
        "output ",
        "metric  accuracy",
        "against 1",
        "95% interval",
    ):
        assert word in said


def test_the_command_gives_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calib = folder / "calib.npz"
    code = command(folder / "a.onnx", folder / "b.onnx", "--calibration", calib, "--json")
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"] == "calibration data"
    assert found["second"]["nbytes"] == (folder / "b.onnx").stat().st_size
    assert found["ratio"]["low"] <= found["ratio"]["high"]
    assert found["outputs"][0]["agreement"] > 0.5


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        ("none.onnx", [], "The second model: there is no file"),
        ("eval.npz", [], "is not an ONNX model"),
        ("b.onnx", ["--data", "none.npz"], "--data: there is no file"),
        ("b.onnx", ["--calibration", "none.npz"], "--calibration: there is no file"),
        ("b.onnx", ["--metric", "accuracy"], "metric needs data"),
        ("b.onnx", ["--batch", "0"], "must be at least 1"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path,
    second: str,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(folder / "a.onnx", folder / second, *options) == 2
    assert message in capsys.readouterr().err


def test_data_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "eval.npz", x=samples(4, 3), labels=np.zeros(4, int))
    data = tmp_path / "eval.npz"
    assert command(folder / "a.onnx", folder / "b.onnx", "--data", data) == 2
    assert "Input 'x'" in capsys.readouterr().err


def _built() -> tuple[Any, Any]:
    backend = FakeBackend({"a": 0.25})
    space = backend.tuning_space()
    return backend.quantize(space.fp32()), backend.quantize(space.default())


def test_models_of_any_backend_are_compared() -> None:
    fp32, quantized = _built()
    found = optuna_quant.compare(fp32, quantized, data=fake_data(20), batch=4, rounds=3)
    assert (found.first.nbytes, found.second.nbytes) == (fp32.nbytes, quantized.nbytes)
    assert (found.first.metric, found.second.metric) == (0.9, 0.65)
    assert (found.batch, found.samples, found.inputs) == (4, 20, "evaluation data")
    assert found.outputs[0].agreement == 0.75
    assert "the second model" in str(found)
    random = optuna_quant.compare(fp32, quantized, batch=3, rounds=3)
    assert (random.batch, random.inputs) == (3, "random inputs")


def test_a_path_and_a_model_are_not_compared(folder: Path) -> None:
    fp32, quantized = _built()
    with pytest.raises(TypeError, match="two ONNX models, or two models that backends.*FakeModel"):
        optuna_quant.compare(folder / "a.onnx", quantized)
    with pytest.raises(TypeError, match="but got int and int"):
        optuna_quant.compare(3, 4)
    with pytest.raises(ValueError, match="threads goes with the paths"):
        optuna_quant.compare(fp32, quantized, threads=1)


def test_samples_of_several_shapes_are_run_one_by_one() -> None:
    shapes: list[tuple[int, ...]] = []

    class Model:
        inputs = (InputSpec("x", np.dtype(np.float32), (None, None)),)
        outputs = ("y",)
        nbytes = 4
        fingerprint = "f"

        def run(self, feed: Any, outputs: Any = None) -> list[Any]:
            shapes.append(feed["x"].shape)
            return [feed["x"].sum(axis=1)]

        def save(self, path: Any) -> None:
            raise NotImplementedError

    pair = BuiltPair(Model(), Model())
    rows = [np.ones(n, np.float32) for n in (3, 5, 3)]
    feeds, source = pair.feeds(
        preview=lambda model, count: [{"x": rows}], inputs=None, batch=2, samples=3, seed=0
    )
    assert source == "evaluation data"
    assert [feed.samples for feed in feeds] == [1, 1, 1]
    for feed in feeds:
        pair.runs(feed.feed)[0]()
    assert shapes == [(1, 3), (1, 5), (1, 3)]
