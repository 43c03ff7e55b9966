"""What the cost table predicts against what was measured."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import MeasureObjective
from optuna_quant.costs.objective import show_measure
from optuna_quant.costs.study_costs import recorded_costs
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.trial_view import views
from optuna_quant.visualization._facts import config_of
from optuna_quant.visualization._facts import has_quantized
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._options import STATIC_8
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import hover
from optuna_quant.visualization._plotly import new_figure
from optuna_quant.visualization._units import Unit
from optuna_quant.visualization._units import unit_of


if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

    from optuna_quant.costs.costs import Costs
    from optuna_quant.visualization._facts import Searched


DIAGONAL = "as predicted"
COLOR = STATIC_8.color


class _Compared(NamedTuple):
    name: str
    predicted: float
    measured: float


class _CostPredictionInfo(NamedTuple):
    measure: str
    unit: Unit
    models: list[_Compared]
    noise: float | None
    rank_correlation: float | None


def _get_cost_prediction_info(
    study: Searched, *, measure: str | None = None, prefix: str = "quant"
) -> _CostPredictionInfo:
    study = study_of(study)
    if measure not in (None, LATENCY, SIZE):
        raise ValueError(
            f"measure must be {LATENCY!r} or {SIZE!r}, which are measured on whole models, but "
            f"got {measure!r}."
        )
    costs = recorded_costs(study)
    if costs is None and not has_quantized(study):
        warn_of_nothing(study, "no trial of a quantized model")
        return _CostPredictionInfo(measure or LATENCY, Unit("Cost"), [], None, None)
    validation = None if costs is None else costs.validation
    if measure is None:
        measure = SIZE if validation is None else LATENCY
    if costs is None or measure not in costs.tables:
        raise ValueError(
            f"The study {study.study_name!r} keeps no table of the measure {measure!r}, so it "
            f"predicts none. tune() keeps one, with objective={measure!r} or costs=; a study that "
            "was run with a QuantObjective or an objective of your own has none."
        )
    if measure == SIZE:
        models = _sizes(study, costs, prefix)
        return _CostPredictionInfo(measure, _unit(measure, models), models, None, None)
    if validation is None:
        raise ValueError(
            f"The study {study.study_name!r} keeps no times of whole models: its cost table was "
            "given and not measured. Use measure='size'."
        )
    pairs = zip(validation.predicted, validation.measured, strict=True)
    models = [_Compared(f"model {place}", *pair) for place, pair in enumerate(pairs)]
    return _CostPredictionInfo(
        measure, _unit(measure, models), models, validation.noise, validation.rank_correlation
    )


def _sizes(study: optuna.Study, costs: Costs, prefix: str) -> list[_Compared]:
    """The different models that trials have built."""
    space = recorded_space(study, prefix)
    table = KnownObjective(MeasureObjective(SIZE), space, costs).costs.tables[SIZE]
    found = {}
    for view in views(study):
        config, size = config_of(space, view), view.model_bytes
        if config is None or size is None or view.model in found:
            continue
        with contextlib.suppress(ValueError):  # A table of the user's may lack an option.
            predicted = table.cost(config)
            found[view.model] = _Compared(f"trial {view.number}", predicted, float(size))
    return list(found.values())


def _unit(measure: str, models: list[_Compared]) -> Unit:
    values = [value for model in models for value in (model.predicted, model.measured)]
    return unit_of(measure, values)


def title_of(info: _CostPredictionInfo) -> str:
    """The title.

    Args:
        info:
            What is drawn.
    """
    what = "time" if info.measure == LATENCY else "size"
    title = f"Predicted and measured {what} of {len(info.models)} models"
    if info.rank_correlation is not None:
        title += f": rank correlation {info.rank_correlation:.2f}"
    return title


def titles_of_axes(info: _CostPredictionInfo) -> tuple[str, str]:
    """The titles of the horizontal and the vertical axis.

    Args:
        info:
            What is drawn.
    """
    unit = f" ({info.unit.unit})" if info.unit.unit else ""
    return f"{info.unit.name}, predicted{unit}", f"{info.unit.name}, measured{unit}"


def ends_of(info: _CostPredictionInfo) -> tuple[float, float]:
    """The ends of both axes, in their unit.

    Args:
        info:
            What is drawn.
    """
    noise = info.noise or 0.0
    values = [v for model in info.models for v in (model.predicted, model.measured)]
    low, high = min(values) - noise, max(values) + noise
    margin = 0.06 * (high - low or abs(high) or 1.0)
    return info.unit.scaled(low - margin), info.unit.scaled(high + margin)


def plot_cost_prediction(
    study: Searched, *, measure: str | None = None, prefix: str = "quant"
) -> go.Figure:
    """Plot what the cost table of a study predicts for whole models against what was measured.

    Models on the diagonal cost what was predicted. For the choice among models their order
    counts: it is right if points rise from left to right.

    Example:
        .. code-block:: python

            figure = optuna_quant.visualization.plot_cost_prediction(result.study)
            figure.show()

    Args:
        study:
            A study that keeps a cost table, or the result of a search.
        measure:
            ``"latency"``, with the models that were timed when the table was measured, or
            ``"size"``, with the models of the trials. Default: the time if that was measured.
        prefix:
            What the names of the study's parameters begin with.

    Returns:
        The figure.

    Raises:
        ValueError:
            If the measure is neither, or the study keeps no table or no measurements of it.
        ImportError:
            If Plotly is not installed.
    """
    graph_objects()
    return _get_cost_prediction_plot(
        _get_cost_prediction_info(study, measure=measure, prefix=prefix)
    )


def _get_cost_prediction_plot(info: _CostPredictionInfo) -> go.Figure:
    go = graph_objects()
    x, y = titles_of_axes(info)
    if not info.models:
        return new_figure("Predicted and measured cost", x=x, y=y)
    figure = new_figure(title_of(info), x=x, y=y, width=640, height=600)
    figure.update_layout(legend={"x": 0.02, "y": 0.98})
    ends = ends_of(info)
    line = {"color": "#AAAAAA", "dash": "dash"}
    figure.add_trace(
        go.Scatter(x=ends, y=ends, mode="lines", line=line, name=DIAGONAL, hoverinfo="skip")
    )
    noise = {}
    if info.noise:
        noise = {"error_y": {"type": "constant", "value": info.unit.scaled(info.noise)}}
    figure.add_trace(
        go.Scatter(
            x=[info.unit.scaled(model.predicted) for model in info.models],
            y=[info.unit.scaled(model.measured) for model in info.models],
            mode="markers",
            marker={"size": 9, "color": COLOR, "opacity": 0.8},
            name=legend_of(info),
            hovertext=[_text(model, info) for model in info.models],
            hoverinfo="text",
            **noise,
        )
    )
    figure.update_xaxes(range=ends)
    figure.update_yaxes(range=ends, scaleanchor="x", constrain="domain")
    return figure


def legend_of(info: _CostPredictionInfo) -> str:
    """What the legend says of the points.

    Args:
        info:
            What is drawn.
    """
    return "models, with noise" if info.noise else "models"


def _text(model: _Compared, info: _CostPredictionInfo) -> str:
    off = model.predicted / model.measured - 1 if model.measured else 0.0
    return hover(
        model=model.name,
        predicted=show_measure(info.measure, model.predicted),
        measured=show_measure(info.measure, model.measured),
        difference=f"{off:+.1%}",
    )
