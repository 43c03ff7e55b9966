"""The command with costs that are given, so that nothing depends on the time that runs take."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pandas as pd
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli import exit_codes
from optuna_quant.cli.parser import main
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.space.config import FP32


TUNE = ["tune", "net.onnx", "--calibration", "calib.npz", "--data", "data.npz", "--no-gain"]
COLUMNS = {"latency": "seconds_gained", "size": "bytes_gained"}
UNITS = {"latency": "s", "size": "bytes"}
LOOSE = ["--tolerable-loss", "0.9", "--costs", "costs.json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = onnx_models.convnet()
    onnx.save(model, tmp_path / "net.onnx")
    x = onnx_models.samples(60, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    np.savez(tmp_path / "calib.npz", x=x[:20])
    np.savez(tmp_path / "data.npz", x=x, labels=scores.argmax(axis=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_costs(quantized: Mapping[str, float], measure: str = "latency") -> None:
    """In FP32 each op takes 1 ms or 1 kB, quantized what is given."""
    fp32 = {"latency": 1e-3, "size": 1e3}[measure]
    space = OnnxRuntimeBackend("net.onnx", inspect_only=True).tuning_space()
    ops = {
        t.name: {
            FP32.label: fp32,
            **{o.label: fp32 * quantized[t.name] for o in t.options if o.is_quantized},
        }
        for t in space.tunables
    }
    table = CostTable(measure, UNITS[measure], ops)
    Costs({measure: table}, {"machine": "another"}).save("costs.json")


def test_nothing_to_gain_has_a_code_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_costs({"Conv0": 2.0, "Conv1": 1.5, "Gemm0": 1.2})
    assert main([*TUNE, *LOOSE, "--output", "OUT.onnx"]) == exit_codes.NO_GAIN == 4
    out = capsys.readouterr().out
    assert out.startswith("NO GAIN")
    assert "4.7 ms with everything quantized, against 3 ms" in out
    assert "6.7% slower" in out
    assert out.endswith("FP32 itself is the best model here; nothing was written to OUT.onnx.\n")
    assert not (folder / "OUT.onnx").exists()
    # Not even if the closest one is asked for: it is no quantized model.
    assert (
        main([*TUNE, *LOOSE, "--output", "OUT.onnx", "--closest", "--quiet"]) == exit_codes.NO_GAIN
    )
    assert not (folder / "OUT.onnx").exists()


def test_an_answer_that_is_no_faster_has_it_as_well_and_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_costs({"Conv0": 2.0, "Conv1": 1.5, "Gemm0": 1.2})
    assert main([*TUNE, *LOOSE, "--op-types", "all", "--quiet"]) == exit_codes.NO_GAIN
    out = capsys.readouterr().out
    assert out.startswith(
        "A quantized model meets the criterion, but it is no faster than FP32 by the"
    )
    assert "written: net.quantized.onnx" in out
    assert (folder / "net.quantized.onnx").exists()


def test_slower_ops_are_left_out_and_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_costs({"Conv0": 2.0, "Conv1": 0.5, "Gemm0": 0.5})
    assert main([*TUNE, *LOOSE, "--report", "report.csv", "--quiet"]) == exit_codes.MET
    assert "slower quantized here: Conv 'Conv0' (2 ms against 1 ms)" in capsys.readouterr().out
    report = (folder / "report.csv").read_text()
    assert "seconds_gained" in report.splitlines()[0]
    assert "Conv0,Conv,fp32" in report


@pytest.mark.parametrize(("objective", "gained"), [("latency", "0.0004568"), ("size", "457.0")])
def test_gains_have_no_digits_that_mean_nothing(folder: Path, objective: str, gained: str) -> None:
    write_costs({"Conv0": 0.54321987, "Conv1": 0.5, "Gemm0": 0.5}, objective)
    options = ["--objective", objective, "--report", "report.csv", "--quiet"]
    assert main([*TUNE, *LOOSE, *options]) == exit_codes.MET
    gains = pd.read_csv(folder / "report.csv", dtype=str).set_index("op")
    assert gains[COLUMNS[objective]]["Conv0"] == gained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "speed"], "Did you mean 'latency'?"),
        (["--objective", "latency=0.7,seize=0.3"], "Did you mean 'size'?"),
        (["--objective", "latency=fast"], "latency=0.7,size=0.3"),
        (["--costs", "nowhere.json"], "--costs: there is no file 'nowhere.json'."),
        (["--costs", "text.json"], "text.json: The costs are not JSON"),
    ],
)
def test_bad_input_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    Path("text.json").write_text("no json")
    assert main([*TUNE, *options]) == exit_codes.BAD_INPUT
    assert message in capsys.readouterr().err


def test_space_shows_what_each_op_gains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_costs({"Conv0": 2.0, "Conv1": 0.5, "Gemm0": 0.5})
    space = ["space", "net.onnx", "--costs", "costs.json"]
    assert main(space) == 0
    out = capsys.readouterr().out
    header, first = out.splitlines()[:2]
    assert header.split()[-3:] == ["fp32", "quantized", "gain"]
    assert first.split()[-6:] == ["1", "ms", "2", "ms", "-1", "ms"]
    assert "latency: FP32 3 ms, everything quantized 3 ms, at best 2 ms" in out
    assert "1 op is slower quantized here" in out
    assert main([*space, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["gain"] for row in rows] == pytest.approx([-1e-3, 5e-4, 5e-4])
    assert main([*space, "--why"]) == 0
    why = capsys.readouterr().out
    assert "Conv0" in why
    assert "slower in INT8 here: 2 ms against 1 ms" in why


def test_costs_are_exported_and_read_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["space", "net.onnx", "--save-costs", "own.json"]) == exit_codes.BAD_INPUT
    assert "--save-costs needs --calibration" in capsys.readouterr().err
    measured = ["space", "net.onnx", "--calibration", "calib.npz", "--threads", "1"]
    assert main([*measured, "--save-costs", "own.json"]) == 0
    assert "own.json" in capsys.readouterr().err
    costs = Costs.load("own.json")
    assert {"latency", "size"} <= set(costs.tables)
    assert main(["space", "net.onnx", "--costs", "own.json"]) == 0
