"""What the tests of commands run on."""

from __future__ import annotations

from pathlib import Path
import shutil

from places import ROOT
import pytest


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model and the data of the example, copied into what is the current directory."""
    for name in ("model.onnx", "calib.npz", "eval.npz"):
        shutil.copy(ROOT / "examples" / "digits" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
