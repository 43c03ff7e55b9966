"""Public models with real inputs, for benchmarks.

The inputs and how the models are fed are in ``real/`` of the cases; the models themselves are
downloaded (see its README), and the variable ``OPTUNA_QUANT_REAL_MODELS`` names their folder.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any


VARIABLE = "OPTUNA_QUANT_REAL_MODELS"


def real_cases(cases: Path | None) -> dict[str, dict[str, Any]]:
    """What ``tune`` takes for each real model, by name; empty where the models are not there."""
    models = os.environ.get(VARIABLE)
    file = None if cases is None else cases / "real" / "cases.py"
    if models is None or file is None or not file.exists():
        return {}
    description = importlib.util.spec_from_file_location("real_cases_of_the_cases", file)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return {name: module.case(models, name) for name in module.TOLERANCES}
