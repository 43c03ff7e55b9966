"""Pruners that stop a candidate whose fate is known."""

from optuna_quant.pruners._accuracy import AccuracyPruner


__all__ = ["AccuracyPruner"]
