"""Sequential testing: what the samples seen so far say of a candidate. NumPy, and no study.

May import: `criteria` and what is below it.
"""

from __future__ import annotations

from optuna_quant.sequential.order import SampleOrder
from optuna_quant.sequential.order import difficulty_levels
from optuna_quant.sequential.population import Population
from optuna_quant.sequential.threshold import ThresholdTest
from optuna_quant.sequential.threshold import Verdict


__all__ = [
    "Population",
    "SampleOrder",
    "ThresholdTest",
    "Verdict",
    "difficulty_levels",
]
