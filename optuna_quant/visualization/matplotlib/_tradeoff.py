"""The metric of all models against what they cost, with Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.visualization._facts import Judged
from optuna_quant.visualization._names import for_matplotlib
from optuna_quant.visualization._tradeoff import FRONT
from optuna_quant.visualization._tradeoff import OFF_SCALE
from optuna_quant.visualization._tradeoff import THRESHOLD_COLOR
from optuna_quant.visualization._tradeoff import _get_tradeoff_info
from optuna_quant.visualization._tradeoff import _TradeoffInfo
from optuna_quant.visualization._tradeoff import at_edge
from optuna_quant.visualization._tradeoff import color_of
from optuna_quant.visualization._tradeoff import edge_of
from optuna_quant.visualization._tradeoff import front_line
from optuna_quant.visualization._tradeoff import title_of
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import mark
from optuna_quant.visualization.matplotlib._pyplot import new_axes
from optuna_quant.visualization.matplotlib._pyplot import put_legend
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.visualization._facts import Searched


@experimental
def plot_tradeoff(
    study: Searched,
    *,
    criterion: AccuracyCriterion | None = None,
    objective: ObjectiveLike | None = None,
) -> Axes:
    """Plot the metric of each model against what it costs, with the criterion and the front.

    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_tradeoff`.
    """
    pyplot()
    return _get_tradeoff_plot(_get_tradeoff_info(study, criterion=criterion, objective=objective))


def _get_tradeoff_plot(info: _TradeoffInfo) -> Axes:
    metric = for_matplotlib(info.metric)
    if not info.points:
        return new_axes("Metric against cost", x=info.cost.title, y=metric)
    axes = new_axes(title_of(info), x=for_matplotlib(info.cost.title), y=metric, size=(9.0, 4.8))
    costs, metrics = front_line(info)
    axes.step(costs, metrics, where="post", color="#AAAAAA", linewidth=1.3, label=FRONT)
    for outcome in reversed(Judged):  # What meets the criterion is on top.
        inside, beyond = at_edge([p for p in info.points if p.outcome is outcome], info)
        if inside:
            mark(
                axes,
                outcome,
                [info.cost.scaled(point.cost) for point in inside],
                [point.metric for point in inside],
                color=color_of(outcome),
            )
        if beyond:
            axes.scatter(
                [info.cost.scaled(point.cost) for point in beyond],
                [point.metric for point in beyond],
                marker="v",
                s=40,
                color=color_of(outcome),
            )
    if edge_of(info) is not None:
        axes.scatter([], [], marker="v", s=40, color=color_of(Judged.MISSED), label=OFF_SCALE)
    if info.threshold is not None:
        axes.axhline(
            info.threshold,
            color=THRESHOLD_COLOR,
            linestyle="--",
            linewidth=1.3,
            label=info.criterion.partition(",")[0],
        )
    put_legend(axes)
    return axes
