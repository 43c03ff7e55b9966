"""A pruner for objectives of the user's own: it stops a candidate whose fate is known."""

from optuna_quant.pruners._accuracy import AccuracyPruner
from optuna_quant.pruners._watched import Watched


__all__ = ["AccuracyPruner", "Watched"]
