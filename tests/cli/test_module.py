"""The command as a module."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

import numpy as np
from places import ROOT


def test_the_module_is_the_command() -> None:
    # That it gives 0 as well is seen below.
    command = [sys.executable, "-m", "optuna_quant", "no"]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 2
    assert refused.stderr.startswith("optuna-quant: error: ")


def test_each_warning_of_the_library_is_one_line(digits: Path) -> None:
    """Also in a process of its own, where parts of the package are imported meanwhile."""
    arrays = dict(np.load("calib.npz"))
    np.savez("few.npz", **{name: array[:20] for name, array in arrays.items()})
    command = [sys.executable, "-m", "optuna_quant", "tune", "model.onnx", "-o", "out.onnx"]
    command += ["--calibration", "few.npz", "--data", "eval.npz", "--metric", "accuracy"]
    command += ["--tolerable-loss", "0.9", "--objective", "ops", "--max-trials", "1"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "20 calibration samples" in line]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("optuna-quant: ")
    large = [line for line in done.stderr.splitlines() if "tolerable loss of 0.9" in line]
    assert len(large) == 1, done.stderr
