"""The command as a module."""

from __future__ import annotations

import subprocess
import sys

from places import ROOT


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "optuna_quant", "strategies"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "mse_v2" in done.stdout
    refused = subprocess.run([*command[:3], "no"], capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 2
