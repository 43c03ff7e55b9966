"""The plots of :mod:`optuna_quant.visualization`, drawn with Matplotlib. Experimental.

May import: as `visualization`.
"""

from __future__ import annotations

from optuna_quant.visualization.matplotlib._confidence_sequence import plot_confidence_sequence
from optuna_quant.visualization.matplotlib._cost_prediction import plot_cost_prediction
from optuna_quant.visualization.matplotlib._model_graph import plot_model_graph
from optuna_quant.visualization.matplotlib._op_sensitivities import plot_op_sensitivities
from optuna_quant.visualization.matplotlib._precisions import plot_precisions
from optuna_quant.visualization.matplotlib._pyplot import is_available
from optuna_quant.visualization.matplotlib._timeline import plot_timeline
from optuna_quant.visualization.matplotlib._tradeoff import plot_tradeoff


__all__ = [
    "is_available",
    "plot_confidence_sequence",
    "plot_cost_prediction",
    "plot_model_graph",
    "plot_op_sensitivities",
    "plot_precisions",
    "plot_timeline",
    "plot_tradeoff",
]
