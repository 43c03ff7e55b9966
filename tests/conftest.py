"""What all tests share."""

from __future__ import annotations

from pathlib import Path
import sys

import optuna
import pytest


# Helper modules of the tests (spaces.py, onnx_models.py, ...) are imported by their plain names.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
