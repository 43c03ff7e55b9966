"""Pruners that stop a candidate whose fate is known."""

from optuna_quant.pruners._accuracy import METHODS
from optuna_quant.pruners._accuracy import AccuracyPruner
from optuna_quant.pruners._watched import Watched


__all__ = ["METHODS", "AccuracyPruner", "Watched"]
