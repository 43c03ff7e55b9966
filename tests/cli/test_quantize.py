"""The command that quantizes without a search."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli.parser import main


BASE = ["quantize", "model.onnx", "--calibration", "calib.npz", "--threads", "1"]


def test_writes_the_default_and_says_what_it_is(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, "-o", "out.onnx", "--report", "r.csv"]) == 0
    out, err = capsys.readouterr()
    backend = OnnxRuntimeBackend("model.onnx", calibration_data="calib.npz")
    model = backend.quantize(backend.tuning_space().default())
    model.save("expected.onnx")
    assert (digits / "out.onnx").read_bytes() == (digits / "expected.onnx").read_bytes()
    assert err == ""
    assert out.splitlines() == [
        "Quantized without a search; no criterion was checked.",
        "14 of 14 ops in integer kernels, 354 kB against 1.3 MB (FP32)",
        "written: out.onnx",
        "report: r.csv",
    ]
    assert list(pd.read_csv("r.csv")["as_asked"]) == [True] * 14


def test_a_report_is_a_configuration_and_data_are_measured(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, "-o", "one.onnx", "--report", "r.csv"]) == 0
    table = pd.read_csv("r.csv", keep_default_na=False)
    table.loc[table["op"] == "stem", ["mode", "activation", "weight"]] = ["fp32", "", ""]
    table.to_csv("edited.csv", index=False)
    capsys.readouterr()
    again = [*BASE, "-o", "two.onnx", "--ops", "edited.csv", "--data", "eval.npz"]
    assert main(again) == 0
    out = capsys.readouterr().out
    assert "13 of 14 ops in integer kernels" in out
    assert "in fallback: stem" in out
    assert "metric  accuracy 0." in out
    assert " against 0.991101 " in out
    assert (digits / "two.onnx").read_bytes() != (digits / "one.onnx").read_bytes()


def test_options_of_a_file(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (digits / "q.toml").write_text('calibration_data = "calib.npz"\nop_types = ["Gemm"]\n')
    assert main(["quantize", "model.onnx", "--config", "q.toml"]) == 0
    assert "1 of 1 op in integer kernels" in capsys.readouterr().out
    assert (digits / "model.quantized.onnx").exists()
    # One file serves all commands; what none of them has is an error.
    (digits / "q.toml").write_text('max_trials = 3\ncalibration_data = "calib.npz"\n')
    assert main(["quantize", "model.onnx", "--config", "q.toml"]) == 0
    (digits / "q.toml").write_text("max_trails = 3\n")
    assert main(["quantize", "model.onnx", "--config", "q.toml"]) == 2
    assert "no option 'max_trails'. Did you mean 'max_trials'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.onnx"], "--calibration is needed for --approach static"),
        (["no.onnx", "--calibration", "calib.npz"], "there is no file 'no.onnx'"),
        (["model.onnx", "--approach", "dynamic", "--metric", "top5"], "--metric needs --data"),
        ([*BASE[1:], "-o", "model.onnx"], "is the model itself"),
        ([*BASE[1:], "-o", "calib.npz"], "is the calibration file itself"),
        ([*BASE[1:], "--ops", "c.json", "-o", "c.json"], "is the file of --ops itself"),
        ([*BASE[1:], "--report", "out.onnx", "-o", "out.onnx"], "is the output itself"),
        ([*BASE[1:], "--ops", "int8"], "config: 'int8' is neither a file nor a name"),
        ([*BASE[1:], "-o", "no/out.onnx"], "there is no directory 'no'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    digits: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in digits.iterdir()}
    assert main(["quantize", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in digits.iterdir()} == before
