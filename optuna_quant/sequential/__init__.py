"""Conclusions from a part of the samples: when a configuration's fate is known, and its rank."""

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
