"""Costs of configurations (time, size, operations), and the objectives of a search.

It knows configurations and spaces, and neither samplers nor backends.

May import: `study` and what is below it.
"""

from __future__ import annotations

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.costs import TRUSTED_CORRELATION
from optuna_quant.costs.costs import Costs
from optuna_quant.costs.costs import CountsCosts
from optuna_quant.costs.costs import HasCostConditions
from optuna_quant.costs.costs import MeasuresCosts
from optuna_quant.costs.costs import Validation
from optuna_quant.costs.gain import Gain
from optuna_quant.costs.gain_per_op import OpGain
from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.given import as_costs
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import MEASURES
from optuna_quant.costs.objective import Objective
from optuna_quant.costs.objective import as_objective
from optuna_quant.costs.table import Boundary
from optuna_quant.costs.table import CostTable
from optuna_quant.costs.table import combined


__all__ = [
    "MEASURES",
    "TRUSTED_CORRELATION",
    "Boundary",
    "CostTable",
    "Costs",
    "CountsCosts",
    "Gain",
    "HasCostConditions",
    "KnownObjective",
    "MeasuresCosts",
    "Objective",
    "OpGain",
    "Validation",
    "as_costs",
    "as_objective",
    "cheapest",
    "combined",
    "op_gains",
]
