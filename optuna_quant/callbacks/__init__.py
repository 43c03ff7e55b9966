"""Callbacks of a study: when it stops, and its progress.

May import: `evaluation` and what is below it.
"""

from optuna_quant.callbacks.exit_policy import ExitPolicy
from optuna_quant.callbacks.progress import Progress
from optuna_quant.callbacks.publishing import Publishes
from optuna_quant.callbacks.publishing import PublishesModels
from optuna_quant.callbacks.stop import Stop
from optuna_quant.callbacks.stop import StopReason


__all__ = ["ExitPolicy", "Progress", "Publishes", "PublishesModels", "Stop", "StopReason"]
