"""Sequential tests of a candidate on the samples seen so far. NumPy only, no study.

May import: `criteria` and what is below it.
"""

from __future__ import annotations

from optuna_quant.sequential.early_stopping import EarlyStopping
from optuna_quant.sequential.order import SampleOrder
from optuna_quant.sequential.order import difficulty_levels
from optuna_quant.sequential.population import Population
from optuna_quant.sequential.weighted_threshold import Decision
from optuna_quant.sequential.weighted_threshold import WeightedThresholdTest


__all__ = [
    "Decision",
    "EarlyStopping",
    "Population",
    "SampleOrder",
    "WeightedThresholdTest",
    "difficulty_levels",
]
