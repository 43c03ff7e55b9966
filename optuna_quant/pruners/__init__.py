"""A pruner for a user's own objective: it stops a candidate once it is decided.

May import: `samplers` and what is below it.
"""

from optuna_quant.pruners._accuracy import AccuracyPruner
from optuna_quant.pruners._watched import Watched


__all__ = ["AccuracyPruner", "Watched"]
