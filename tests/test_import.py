"""Importing the package is light."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import optuna_quant


HEAVY = [
    *("torch", "onnx", "onnxruntime", "plotly", "matplotlib", "optuna_dashboard", "pandas"),
    "pytest",
]


def test_import_is_light() -> None:
    code = (
        "import sys, optuna; before = set(sys.modules); import optuna_quant;"
        "from optuna_quant import AccuracyCriterion, ExitPolicy, TuningSpace;"
        "import optuna_quant.samplers;"
        f"print([name for name in {HEAVY} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", optuna_quant.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(optuna_quant, name) is not None
    assert name in dir(optuna_quant)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Tune'"):
        _ = optuna_quant.Tune


def test_typed() -> None:
    package = importlib.resources.files("optuna_quant")
    assert (package / "py.typed").is_file()


def test_tune_starts_without_what_is_slow_to_import() -> None:
    slow = [*HEAVY, "scipy", "sqlalchemy", "sklearn"]
    code = (
        "import sys, optuna; before = set(sys.modules); import optuna_quant.tuning.prepare;"
        f"print([name for name in {slow} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reports_import_what_is_slow_when_they_are_written() -> None:
    slow = [*HEAVY, "jinja2", "scipy"]
    code = (
        "import sys, optuna; before = set(sys.modules); import optuna_quant.report;"
        f"print([name for name in {slow} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
