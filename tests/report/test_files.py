"""Reports are written to files in the form of their ending; other endings are refused early."""

from __future__ import annotations

import csv
import json
from pathlib import Path
import shutil

from places import ROOT
import pytest
from report.kinds import search

from optuna_quant.cli import exit_codes
from optuna_quant.cli.parser import main
from optuna_quant.report import check_report


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model and the data of the example, copied into what is the current directory."""
    for name in ("model.onnx", "calib.npz", "eval.npz"):
        shutil.copy(ROOT / "examples" / "digits" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


TUNE = ["tune", "model.onnx", "--calibration", "calib.npz", "--data", "eval.npz", "--quiet"]


def test_the_ending_says_the_form(tmp_path: Path) -> None:
    result = search()
    for name in ("r.html", "r.JSON", "r.csv"):
        result.save_report(tmp_path / name)
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "r.JSON").read_text())["format"] == 1
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["op"] for row in rows] == list(result.report()["op"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r.pdf", r"'.*r\.pdf' has the unknown ending '\.pdf'; give one of \.html \(a page\), "),
        ("r", r"has no ending; give one of \.html"),
        ("no/r.html", r"cannot be written: there is no directory"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search().save_report(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        check_report(tmp_path / name)


def test_a_report_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old" * 100_000)
    search().save_report(path)
    assert json.loads(path.read_text())["outcome"]["kind"] == "met"
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]


def test_the_command_writes_what_the_ending_says(digits: Path) -> None:
    loose = ["--tolerable-loss", "0.5", "--objective", "ops"]
    for name in ("r.html", "r.json", "r.csv"):
        assert main([*TUNE, *loose, "--report", name]) in (exit_codes.MET, exit_codes.NO_GAIN)
    stored = json.loads((digits / "r.json").read_text())
    assert stored["reproduce"]["language"] == "shell"
    assert stored["reproduce"]["code"].startswith("optuna-quant tune model.onnx --calibration")
    assert stored["reproduce"]["seed"] == 0
    assert stored["title"] == "model.onnx"
    assert stored["model"]["inputs"][0]["name"] == "x"
    assert "optuna-quant tune model.onnx" in (digits / "r.html").read_text()


def test_the_command_refuses_an_ending_before_any_work(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TUNE, "--report", "r.pdf"]) == exit_codes.BAD_INPUT
    assert "has the unknown ending '.pdf'; give one of .html (a page)" in capsys.readouterr().err
    assert sorted(path.name for path in digits.iterdir()) == [
        "calib.npz",
        "eval.npz",
        "model.onnx",
    ]
