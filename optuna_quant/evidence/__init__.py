"""Conclusions from a part of the samples: when a configuration's fate is known, and its rank."""

from __future__ import annotations

from optuna_quant.evidence.order import SampleOrder
from optuna_quant.evidence.order import difficulty_levels
from optuna_quant.evidence.population import Population
from optuna_quant.evidence.threshold import ThresholdTest
from optuna_quant.evidence.threshold import Verdict


__all__ = [
    "Population",
    "SampleOrder",
    "ThresholdTest",
    "Verdict",
    "difficulty_levels",
]
