"""What optuna-dashboard shows of a search: publish it, and serve the dashboard.

Needs ``pip install "optuna_quant[dashboard]"``.

May import: `compat` and what is below it.
"""

from __future__ import annotations

from optuna_quant.dashboard.callback import PublishToDashboard
from optuna_quant.dashboard.publish import publish
from optuna_quant.dashboard.shown_storage import ShownStorage


__all__ = ["PublishToDashboard", "ShownStorage", "publish"]
