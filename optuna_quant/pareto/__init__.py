"""What a study knows of the trade between accuracy and cost: its front, and answers from it."""

from __future__ import annotations

from optuna_quant.pareto.front import FrontPoint
from optuna_quant.pareto.front import front_points
from optuna_quant.pareto.objective import ParetoObjective


__all__ = ["FrontPoint", "ParetoObjective", "front_points"]
