"""Tests that any backend can run: they hold it against what the library rests on.

Needs pytest. Derive a class from each of these and say how the backend is made::

    from optuna_quant.testing import BackendTestCase, ModelTestCase, TuningTestCase


    class TestBackend(BackendTestCase, ModelTestCase, TuningTestCase):
        @pytest.fixture
        def make_backend(self):
            return lambda: MyBackend(model, calibration_data=data)

:class:`BackendTestCase`, :class:`ModelTestCase` and :class:`TuningTestCase` are for every backend,
the others for what a backend offers on top; what it does not offer is skipped, or fails where a
class is for that alone.

May import: `cli` and what is below it.
"""

from __future__ import annotations

import pytest


pytest.register_assert_rewrite(
    *(
        f"optuna_quant.testing.{name}"
        for name in (
            "backend",
            "blocks",
            "calibration",
            "compiling",
            "costs",
            "description",
            "model",
            "parts",
            "same",
            "sensitivity",
            "simulation",
            "training",
            "tuning",
        )
    )
)

from optuna_quant.testing.backend import BackendTestCase  # noqa: E402 (rewritten first)
from optuna_quant.testing.blocks import BlocksTestCase  # noqa: E402
from optuna_quant.testing.calibration import CalibrationTestCase  # noqa: E402
from optuna_quant.testing.compiling import CompilingTestCase  # noqa: E402
from optuna_quant.testing.costs import CostsTestCase  # noqa: E402
from optuna_quant.testing.model import ModelTestCase  # noqa: E402
from optuna_quant.testing.parts import PartsTestCase  # noqa: E402
from optuna_quant.testing.sensitivity import SensitivityTestCase  # noqa: E402
from optuna_quant.testing.simulation import SimulationTestCase  # noqa: E402
from optuna_quant.testing.training import TrainingTestCase  # noqa: E402
from optuna_quant.testing.tuning import TuningTestCase  # noqa: E402


__all__ = [
    "BackendTestCase",
    "BlocksTestCase",
    "CalibrationTestCase",
    "CompilingTestCase",
    "CostsTestCase",
    "ModelTestCase",
    "PartsTestCase",
    "SensitivityTestCase",
    "SimulationTestCase",
    "TrainingTestCase",
    "TuningTestCase",
]
