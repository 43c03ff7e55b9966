"""The command `optuna-quant`.

May import: `dashboard` and what is below it.
"""

from __future__ import annotations

from optuna_quant.cli.parser import main


__all__ = ["main"]
