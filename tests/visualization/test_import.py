"""Importing the plots is light."""

from __future__ import annotations

import subprocess
import sys


def test_neither_library_is_imported_before_something_is_drawn() -> None:
    code = (
        "import sys; import optuna_quant.visualization.plots;"
        "print([n for n in ('plotly', 'matplotlib', 'torch', 'onnxruntime') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
