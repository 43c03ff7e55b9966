"""The command that writes the model of a trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from optuna_quant.cli.parser import main


COMMON = ["model.onnx", "--calibration", "calib.npz", "--threads", "1"]
TUNE = ["tune", *COMMON, "--data", "eval.npz", "--quiet", "--objective", "size", "--no-gain"]
TUNE += ["--no-verify", "--tolerable-loss", "0.2", "--strategy", "random"]
TUNE += ["--output", "model.quantized.onnx"]
EXPORT = ["export", *COMMON]


def test_the_file_of_tune_and_those_of_other_trials(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(TUNE) == 0
    capsys.readouterr()
    assert main([*EXPORT, "--report", "r.csv"]) == 0
    out, err = capsys.readouterr()
    (written,) = digits.glob("model.trial*.onnx")
    assert written.read_bytes() == (digits / "model.quantized.onnx").read_bytes()
    number = written.name.removeprefix("model.trial").removesuffix(".onnx")
    assert out.startswith(f"Trial {number} of the study 'model-")
    assert f"written: {written.name}\nreport: r.csv\n" in out
    assert err == ""
    assert main([*EXPORT, "--trial", "0", "-o", "fp32.onnx"]) == 0
    assert "this is the FP32 model as it is" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in digits.iterdir()}
    for arguments, message in (
        (["--trial", "last"], "it must be a number or 'best', but is 'last'"),
        (["-o", "model.onnx"], "is the model itself"),
        (["-o", "model.quantized.optuna_quant.journal"], "is the storage itself"),
        (["-o", "x.onnx", "--report", "x.onnx"], "is the output itself"),
        (["--approach", "dynamic"], "was started with other options (it has approach='static'"),
        (
            ["--op-types", "all"],
            "there is no option --op-types (tune, space, quantize, sensitivity have it)",
        ),
    ):
        assert main([*EXPORT, *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert len(err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in digits.iterdir()} == before
