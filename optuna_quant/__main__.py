"""The command ``optuna-quant``, as ``python -m optuna_quant``."""

from __future__ import annotations

import sys

from optuna_quant.cli import main


if __name__ == "__main__":
    sys.exit(main())
