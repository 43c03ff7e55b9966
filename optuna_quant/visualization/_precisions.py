"""In which precision each op was in each trial."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.trial_view import views
from optuna_quant.visualization._facts import SYMBOLS
from optuna_quant.visualization._facts import Judged
from optuna_quant.visualization._facts import config_of
from optuna_quant.visualization._facts import criterion_of
from optuna_quant.visualization._facts import has_quantized
from optuna_quant.visualization._facts import judged
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._names import for_plotly
from optuna_quant.visualization._names import shortened
from optuna_quant.visualization._options import PRECISIONS
from optuna_quant.visualization._options import UNKNOWN
from optuna_quant.visualization._options import Precision
from optuna_quant.visualization._options import precision_of
from optuna_quant.visualization._options import present
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import hover
from optuna_quant.visualization._plotly import new_figure
from optuna_quant.visualization._plotly import thinned


if TYPE_CHECKING:
    import plotly.graph_objects as go

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.visualization._facts import Searched


TITLE = "Precision of each op in each trial"
MOST_LABELS = 60

# With more cells, hover texts are short: whole names and labels would make files of megabytes.
_MOST_TEXTS = 20_000


def outcome_rows(info: _PrecisionsInfo) -> dict[Judged, float]:
    """Where the markers of each outcome are, above the first op.

    All are in one row, but in one each where there are so many trials that they would touch.

    Args:
        info:
            What is drawn.
    """
    found = [outcome for outcome in Judged if outcome in info.outcomes]
    first = -max(1.6, 0.03 * len(info.ops))
    step = 0.7 * first if len(info.trials) > MOST_LABELS else 0.0
    return {outcome: first + step * place for place, outcome in enumerate(found)}


def top_of(info: _PrecisionsInfo) -> float:
    """The upper end of the vertical axis.

    Args:
        info:
            What is drawn.
    """
    rows = outcome_rows(info).values()
    return min(rows) + 0.5 * max(rows)


class _PrecisionsInfo(NamedTuple):
    ops: list[str]
    trials: list[int]
    outcomes: list[Judged]
    precisions: list[list[Precision]]
    """A row per op, a column per trial."""
    labels: list[list[str]]
    """The label of the option, in the same way; empty where it is not recorded."""


def _get_precisions_info(
    study: Searched, *, criterion: AccuracyCriterion | None = None, prefix: str = "quant"
) -> _PrecisionsInfo:
    study = study_of(study)
    if not has_quantized(study):
        warn_of_nothing(study, "no trial of a quantized model")
        return _PrecisionsInfo([], [], [], [], [])
    space = recorded_space(study, prefix)
    criterion, baseline = criterion_of(study, criterion), get_baseline(study)
    shown = [view for view in views(study) if view.is_finished]
    columns = [config_of(space, view) for view in shown]
    by_label: dict[str, Precision] = {"": UNKNOWN}
    labels = []
    for tunable in space.tunables:
        options = [None if c is None else c.ops[tunable.ops[0]] for c in columns]
        labels.append(["" if option is None else option.label for option in options])
        by_label |= {o.label: precision_of(o) for o in tunable.options if o.label not in by_label}
    return _PrecisionsInfo(
        [tunable.name for tunable in space.tunables],
        [view.number for view in shown],
        [judged(view, criterion, baseline) for view in shown],
        [[by_label[label] for label in row] for row in labels],
        labels,
    )


def plot_precisions(
    study: Searched, *, criterion: AccuracyCriterion | None = None, prefix: str = "quant"
) -> go.Figure:
    """Plot in which precision each op was in each trial, as a heat map.

    A row is an op, in the order of the model, a column a trial. The markers on top say what came
    out of the trial.

    Example:
        .. code-block:: python

            figure = optuna_quant.visualization.plot_precisions(result.study)
            figure.show()

    Args:
        study:
            A study that a strategy of this library has searched, or the result of a search.
        criterion:
            What trials that were evaluated in full are judged by. Default: that of the study, or
            at most 1% relative loss if it records none.
        prefix:
            What the names of the study's parameters begin with.

    Returns:
        The figure.

    Raises:
        ValueError:
            If the study keeps no tuning space with that prefix.
        ImportError:
            If Plotly is not installed.
    """
    graph_objects()
    return _get_precisions_plot(_get_precisions_info(study, criterion=criterion, prefix=prefix))


def _get_precisions_plot(info: _PrecisionsInfo) -> go.Figure:
    go = graph_objects()
    rows, columns = len(info.ops), len(info.trials)
    height = min(1000, max(360, 190 + 20 * rows))
    figure = new_figure(TITLE, x="Trial", height=height, legend={"itemclick": False})
    if not rows:
        return figure
    gap = 1 if rows <= MOST_LABELS and columns <= MOST_LABELS else 0
    positions = {each: place for place, each in enumerate(PRECISIONS)}
    figure.add_trace(
        go.Heatmap(
            z=[[positions[each] for each in row] for row in info.precisions],
            zmin=-0.5,
            zmax=len(PRECISIONS) - 0.5,
            colorscale=_color_scale(),
            showscale=False,
            xgap=gap,
            ygap=gap,
            text=_texts(info),
            hovertemplate="%{text}<extra></extra>",
        )
    )
    for outcome, row in outcome_rows(info).items():
        figure.add_trace(_outcomes(info, outcome, row))
    for precision in present(each for row in info.precisions for each in row):
        marker = {"symbol": "square", "size": 12, "color": precision.color}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", name=precision.name, marker=marker)
        )
    shown, numbers = thinned(info.ops, MOST_LABELS), thinned(info.trials, 16)
    names = shortened(info.ops)
    figure.update_yaxes(
        tickvals=shown,
        ticktext=[for_plotly(names[place]) for place in shown],
        tickfont={"size": 11 if rows <= MOST_LABELS else 9},
        range=[rows - 0.5, top_of(info)],
        automargin=True,
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(
        tickvals=numbers,
        ticktext=[str(info.trials[place]) for place in numbers],
        range=[-0.7, columns - 0.3],
        showgrid=False,
        zeroline=False,
    )
    return figure


def _color_scale() -> list[tuple[float, str]]:
    """A scale of steps, one for each precision."""
    count = len(PRECISIONS)
    return [
        (edge / count, each.color)
        for place, each in enumerate(PRECISIONS)
        for edge in (place, place + 1)
    ]


def _texts(info: _PrecisionsInfo) -> list[list[str]]:
    if len(info.ops) * len(info.trials) > _MOST_TEXTS:
        return [
            [
                hover(op=op, trial=f"{number}, {each.name}")
                for number, each in zip(info.trials, row, strict=True)
            ]
            for op, row in zip(shortened(info.ops), info.precisions, strict=True)
        ]
    return [
        [
            hover(op=op, trial=number, precision=each.name, option=label)
            for number, each, label in zip(info.trials, row, labels, strict=True)
        ]
        for op, row, labels in zip(info.ops, info.precisions, info.labels, strict=True)
    ]


def trials_of(info: _PrecisionsInfo, outcome: Judged) -> list[int]:
    """The columns of the trials of which an outcome came out.

    Args:
        info:
            What is drawn.
        outcome:
            The outcome.
    """
    return [place for place, each in enumerate(info.outcomes) if each is outcome]


def _outcomes(info: _PrecisionsInfo, outcome: Judged, row: float) -> go.Scatter:
    found = trials_of(info, outcome)
    size = 9 if len(info.trials) <= MOST_LABELS else 5
    return graph_objects().Scatter(
        x=found,
        y=[row] * len(found),
        mode="markers",
        name=str(outcome),
        marker={
            "symbol": SYMBOLS[outcome][0],
            "size": size,
            "color": "#222222",
            "line_width": 1.2,
        },
        hovertext=[hover(trial=info.trials[place], outcome=outcome) for place in found],
        hoverinfo="text",
    )
