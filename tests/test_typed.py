"""The types of the package, as a user's own type checker sees them.

`make release-check` does the same with the package that is installed from its wheel.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

import pytest

import optuna_quant


PACKAGE = Path(optuna_quant.__file__).parent
SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "user_script.py"
MISTAKES = """
AccuracyCriterion(tolerable_loss="much")
tune("model.onnx", max_trails=10)
"""


@pytest.mark.slow
def test_a_users_script_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    assert (PACKAGE / "py.typed").exists()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text() + MISTAKES)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", script],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if "script.py" in line]
    errors = [line for line in errors if ": error: " in line]
    assert len(errors) == 2, checked.stdout + checked.stderr
    assert '"tolerable_loss"' in errors[0]
    assert "max_trails" in errors[1]
