"""What configurations cost: time, size, operations; and what of it a search is to make small.

It knows configurations and spaces, and neither samplers nor backends.
"""

from __future__ import annotations

from optuna_quant.costs.costs import TRUSTED_CORRELATION
from optuna_quant.costs.costs import Costs
from optuna_quant.costs.costs import MeasuresCosts
from optuna_quant.costs.costs import Validation
from optuna_quant.costs.table import Boundary
from optuna_quant.costs.table import CostTable
from optuna_quant.costs.table import combined


__all__ = [
    "TRUSTED_CORRELATION",
    "Boundary",
    "CostTable",
    "Costs",
    "MeasuresCosts",
    "Validation",
    "combined",
]
