from optuna_quant.pruners import AccuracyPruner


__all__ = ["AccuracyPruner"]
