"""Importing the package is light."""

from __future__ import annotations

import importlib
from pathlib import Path
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


def test_packages_need_no_import_of_their_own() -> None:
    code = (
        "import optuna_quant as q;"
        "print(q.samplers.BasicQuantSampler.__name__, q.selection.best_met_trial.__name__,"
        " q.compat.inc.load.__name__, q.visualization.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "BasicQuantSampler",
        "best_met_trial",
        "load",
        "optuna_quant.visualization",
    ]


def test_every_public_package_is_an_attribute() -> None:
    folder = Path(optuna_quant.__file__).parent
    there = {path.stem for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"}
    packages = {name for name in there if not name.startswith("_")} - {"cli"}
    assert packages <= set(dir(optuna_quant))
    for name in packages:
        assert getattr(optuna_quant, name).__name__ == f"optuna_quant.{name}"


@pytest.mark.parametrize("name", ["PostTrainingQuantConfig", "quantization"])
def test_names_of_neural_compressor_lead_to_its_reader(name: str) -> None:
    with pytest.raises(ImportError, match=r"optuna_quant\.compat\.inc\.load\(\)"):
        exec(f"from optuna_quant import {name}")


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
