"""The metric of all models against what they cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.selection.front import FrontPoint
from optuna_quant.selection.front import front_points
from optuna_quant.selection.front import shown_unknown
from optuna_quant.selection.front import study_points
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import views
from optuna_quant.visualization._facts import SYMBOLS
from optuna_quant.visualization._facts import Judged
from optuna_quant.visualization._facts import criterion_of
from optuna_quant.visualization._facts import has_quantized
from optuna_quant.visualization._facts import judged
from optuna_quant.visualization._facts import metric_name
from optuna_quant.visualization._facts import objective_of
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._names import for_plotly
from optuna_quant.visualization._options import FP32
from optuna_quant.visualization._options import STATIC_8
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import hover
from optuna_quant.visualization._plotly import new_figure
from optuna_quant.visualization._units import Unit
from optuna_quant.visualization._units import unit_of


if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.visualization._facts import Searched


FRONT = "front"
OFF_SCALE = "off the scale"
THRESHOLD_COLOR = "#D55E00"
_COLORS = {Judged.MET: STATIC_8.color, Judged.FP32: FP32.color}
_OTHER = "#666666"
# Points further below the threshold than this many tolerances are drawn at the edge.
_SHOWN_TOLERANCES = 12.0


class _Point(NamedTuple):
    trial: int | None
    cost: float
    shown_cost: str
    metric: float
    outcome: Judged
    fallback_ops: int
    samples: tuple[int, int] | None


class _TradeoffInfo(NamedTuple):
    metric: str
    cost: Unit
    points: list[_Point]
    front: list[tuple[float, float]]
    """Costs and metrics, the cheapest first."""
    threshold: float | None
    criterion: str
    higher_is_better: bool


def _get_tradeoff_info(
    study: Searched,
    *,
    criterion: AccuracyCriterion | None = None,
    objective: ObjectiveLike | None = None,
) -> _TradeoffInfo:
    study = study_of(study)
    criterion, baseline = criterion_of(study, criterion), get_baseline(study)
    higher = criterion.higher_is_better
    if baseline is None or not has_quantized(study):
        lacks = "no baseline" if baseline is None else "no trial of a quantized model"
        warn_of_nothing(study, lacks)
        return _TradeoffInfo("metric", Unit("Cost"), [], [], None, str(criterion), higher)
    chosen = objective_of(study, objective)
    full, estimated = study_points(study, criterion, chosen)
    known = [each for each in (*full, *estimated) if _is_known(each)]
    if not any(not each.is_fp32 for each in known):
        raise ValueError(shown_unknown(study, chosen, [each.measures for each in full]))
    trials = views(study)

    def outcome(point: FrontPoint) -> Judged:
        if point.is_fp32 or point.trial is None:
            return Judged.FP32
        return judged(trials[point.trial], criterion, baseline)

    points = [
        _Point(
            each.trial,
            each.cost,
            chosen.show(each.cost),
            each.metric,
            outcome(each),
            each.fallback_ops,
            each.samples,
        )
        for each in known
    ]
    front = []
    if any(_is_known(each) and not each.is_fp32 for each in full):
        front = [(p.cost, p.metric) for p in front_points(study, criterion, chosen)]
    return _TradeoffInfo(
        metric_name(study),
        unit_of(chosen.name, [point.cost for point in points], name=_name(chosen.name)),
        points,
        front,
        criterion.threshold(baseline.value),
        str(criterion),
        higher,
    )


def _is_known(point: FrontPoint) -> bool:
    return math.isfinite(point.cost) and math.isfinite(point.metric)


def _name(objective: str) -> str | None:
    return "Time of a run, as predicted" if objective == "latency" else None


def edge_of(info: _TradeoffInfo) -> float | None:
    """The metric beyond which points are drawn at the edge, so that they squeeze no others.

    Args:
        info:
            What is drawn.

    Returns:
        The metric; :obj:`None` if no point is so far off.
    """
    fp32 = next((p.metric for p in info.points if p.outcome is Judged.FP32), None)
    if info.threshold is None or fp32 is None or fp32 == info.threshold:
        return None
    edge = info.threshold + _SHOWN_TOLERANCES * (info.threshold - fp32)
    return edge if any(_is_beyond(p.metric, edge, info) for p in info.points) else None


def _is_beyond(metric: float, edge: float, info: _TradeoffInfo) -> bool:
    return metric < edge if info.higher_is_better else metric > edge


def at_edge(points: Sequence[_Point], info: _TradeoffInfo) -> tuple[list[_Point], list[_Point]]:
    """Those points that are drawn where they are, and those that are drawn at the edge.

    Args:
        points:
            Some of the points.
        info:
            What is drawn.
    """
    edge = edge_of(info)
    if edge is None:
        return list(points), []
    beyond = [p for p in points if _is_beyond(p.metric, edge, info)]
    return [p for p in points if p not in beyond], [p._replace(metric=edge) for p in beyond]


def color_of(outcome: Judged) -> str:
    """The colour of the markers of an outcome.

    Args:
        outcome:
            The outcome.
    """
    return _COLORS.get(outcome, _OTHER)


def title_of(info: _TradeoffInfo) -> str:
    """The title.

    Args:
        info:
            What is drawn.
    """
    metric = info.metric[:1].upper() + info.metric[1:]
    cost = info.cost.name[:1].lower() + info.cost.name[1:]
    return f"{metric} against {cost}: {len(info.points)} models"


def front_line(info: _TradeoffInfo) -> tuple[list[float], list[float]]:
    """The front in the units of the axes.

    Args:
        info:
            What is drawn.
    """
    beyond = edge_of(info)
    kept = [
        (cost, metric)
        for cost, metric in info.front
        if beyond is None or not _is_beyond(metric, beyond, info)
    ]
    return [info.cost.scaled(cost) for cost, _ in kept], [metric for _, metric in kept]


def plot_tradeoff(
    study: Searched,
    *,
    criterion: AccuracyCriterion | None = None,
    objective: ObjectiveLike | None = None,
) -> go.Figure:
    """Plot the metric of each model against what it costs, with the criterion and the front.

    Models that were evaluated on a part of the samples are shown by their estimates. Those that
    miss the criterion by many times the tolerance are drawn at the edge of the figure.

    Example:
        .. code-block:: python

            figure = optuna_quant.visualization.plot_tradeoff(result.study, objective="size")
            figure.show()

    Args:
        study:
            A study that a strategy of this library has searched, or the result of a search.
        criterion:
            What trials that were evaluated in full are judged by. Default: that of the study, or
            at most 1% relative loss if it records none.
        objective:
            What models cost, as :func:`optuna_quant.costs.as_objective` takes it. Default: the
            objective of the study.

    Returns:
        The figure.

    Raises:
        ValueError:
            If the objective is not known, or no trial has recorded what it needs.
        ImportError:
            If Plotly is not installed.
    """
    graph_objects()
    return _get_tradeoff_plot(_get_tradeoff_info(study, criterion=criterion, objective=objective))


def _get_tradeoff_plot(info: _TradeoffInfo) -> go.Figure:
    go = graph_objects()
    if not info.points:
        return new_figure("Metric against cost", x=info.cost.title, y=info.metric)
    figure = new_figure(title_of(info), x=info.cost.title, y=info.metric, height=500)
    costs, metrics = front_line(info)
    line = {"color": "#AAAAAA", "width": 1.5, "shape": "hv"}
    figure.add_trace(
        go.Scatter(x=costs, y=metrics, mode="lines", line=line, name=FRONT, hoverinfo="skip")
    )
    for outcome in reversed(Judged):  # What meets the criterion is on top.
        found = [point for point in info.points if point.outcome is outcome]
        inside, beyond = at_edge(found, info)
        for points, symbol in ((inside, SYMBOLS[outcome][0]), (beyond, "triangle-down")):
            if points:
                figure.add_trace(_markers(points, symbol, outcome, info, found))
    if edge_of(info) is not None:
        marker = {"symbol": "triangle-down", "size": 10, "color": _OTHER}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=OFF_SCALE)
        )
    if info.threshold is not None:
        figure.add_hline(
            info.threshold,
            line={"color": THRESHOLD_COLOR, "width": 1.5, "dash": "dash"},
            annotation={
                "text": for_plotly(info.criterion.partition(",")[0]),
                "font": {"color": THRESHOLD_COLOR, "size": 11},
            },
            annotation_position="bottom right" if info.higher_is_better else "top right",
        )
    return figure


def _markers(
    points: list[_Point],
    symbol: str,
    outcome: Judged,
    info: _TradeoffInfo,
    found: list[_Point],
) -> go.Scatter:
    true = {(point.trial, point.cost): point for point in found}
    is_off = symbol == "triangle-down"
    return graph_objects().Scatter(
        x=[info.cost.scaled(point.cost) for point in points],
        y=[point.metric for point in points],
        mode="markers",
        name=OFF_SCALE if is_off else str(outcome),
        showlegend=not is_off,
        marker={"symbol": symbol, "size": 10, "color": color_of(outcome), "line": {"width": 1.5}},
        hovertext=[_text(true[point.trial, point.cost], info) for point in points],
        hoverinfo="text",
    )


def _text(point: _Point, info: _TradeoffInfo) -> str:
    samples = None if point.samples is None else f"{point.samples[0]} of {point.samples[1]}"
    return hover(
        trial=point.trial,
        metric=f"{point.metric:.6g}",
        cost=point.shown_cost,
        ops_in_fallback=point.fallback_ops,
        samples=samples,
        outcome=point.outcome,
    )
