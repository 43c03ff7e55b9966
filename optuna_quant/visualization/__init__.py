"""Plots of a study, drawn with Plotly, or with Matplotlib by :mod:`.matplotlib`.

Each reads the record alone, so it can be drawn while a search runs, and from any storage. Both
libraries are imported where they are used: ``pip install "optuna_quant[plot]"``.

May import: `report` and what is below it.
"""

from __future__ import annotations

from optuna_quant.visualization import matplotlib
from optuna_quant.visualization._confidence_sequence import plot_confidence_sequence
from optuna_quant.visualization._cost_prediction import plot_cost_prediction
from optuna_quant.visualization._model_graph import plot_model_graph
from optuna_quant.visualization._op_sensitivities import plot_op_sensitivities
from optuna_quant.visualization._plotly import is_available
from optuna_quant.visualization._precisions import plot_precisions
from optuna_quant.visualization._timeline import plot_timeline
from optuna_quant.visualization._tradeoff import plot_tradeoff


__all__ = [
    "is_available",
    "matplotlib",
    "plot_confidence_sequence",
    "plot_cost_prediction",
    "plot_model_graph",
    "plot_op_sensitivities",
    "plot_precisions",
    "plot_timeline",
    "plot_tradeoff",
]
