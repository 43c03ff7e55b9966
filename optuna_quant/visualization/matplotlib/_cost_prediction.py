"""What the cost table predicts against what was measured, with Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.visualization._cost_prediction import COLOR
from optuna_quant.visualization._cost_prediction import DIAGONAL
from optuna_quant.visualization._cost_prediction import _CostPredictionInfo
from optuna_quant.visualization._cost_prediction import _get_cost_prediction_info
from optuna_quant.visualization._cost_prediction import ends_of
from optuna_quant.visualization._cost_prediction import legend_of
from optuna_quant.visualization._cost_prediction import title_of
from optuna_quant.visualization._cost_prediction import titles_of_axes
from optuna_quant.visualization.matplotlib._pyplot import FONT
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import new_axes
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optuna_quant.visualization._facts import Searched


@experimental
def plot_cost_prediction(
    study: Searched, *, measure: str | None = None, prefix: str = "quant"
) -> Axes:
    """Plot what the cost table of a study predicts for whole models against what was measured.

    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_cost_prediction`.
    """
    pyplot()
    return _get_cost_prediction_plot(
        _get_cost_prediction_info(study, measure=measure, prefix=prefix)
    )


def _get_cost_prediction_plot(info: _CostPredictionInfo) -> Axes:
    x, y = titles_of_axes(info)
    if not info.models:
        return new_axes("Predicted and measured cost", x=x, y=y)
    axes = new_axes(title_of(info), x=x, y=y, size=(6.6, 6.2))
    ends = ends_of(info)
    axes.plot(ends, ends, color="#AAAAAA", linestyle="--", label=DIAGONAL)
    axes.errorbar(
        [info.unit.scaled(model.predicted) for model in info.models],
        [info.unit.scaled(model.measured) for model in info.models],
        yerr=info.unit.scaled(info.noise) if info.noise else None,
        fmt="o",
        color=COLOR,
        alpha=0.8,
        markersize=6,
        label=legend_of(info),
    )
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.legend(fontsize=FONT - 1, frameon=False, loc="upper left")
    return axes
