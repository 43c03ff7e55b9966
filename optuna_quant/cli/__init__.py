"""The command `optuna-quant`.

May import: every room.
"""

from __future__ import annotations

from optuna_quant.cli.parser import main


__all__ = ["main"]
