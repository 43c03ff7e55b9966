"""When each trial ran, on which worker and for which stage."""

from __future__ import annotations

from collections import Counter
import datetime
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.stage_words import shown_stage
from optuna_quant.study.trial_view import views
from optuna_quant.visualization._facts import Judged
from optuna_quant.visualization._facts import criterion_of
from optuna_quant.visualization._facts import judged
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._names import for_plotly
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import hover
from optuna_quant.visualization._plotly import new_figure


if TYPE_CHECKING:
    import plotly.graph_objects as go

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.study.trial_view import TrialView
    from optuna_quant.visualization._facts import Searched


TITLE = "Trials by worker and stage"
TIME = "Time"
OTHER_STAGES = "other stages"
NO_STAGE = "no stage"

# Okabe and Ito's, without the yellow, whose bars could hardly be seen on white.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_OTHER = "#999999"


class _Bar(NamedTuple):
    trial: int
    lane: int
    stage: str
    start: datetime.datetime
    end: datetime.datetime
    outcome: Judged
    is_running: bool


class _TimelineInfo(NamedTuple):
    bars: list[_Bar]
    workers: list[str]
    """The full name of the worker of each lane."""
    colors: dict[str, str]
    """The colour of each stage, in the order of their first trials."""


def _get_timeline_info(
    study: Searched, *, criterion: AccuracyCriterion | None = None
) -> _TimelineInfo:
    study = study_of(study)
    found = [view for view in views(study) if view.trial.datetime_start is not None]
    if all(view.is_foreign for view in found):
        warn_of_nothing(study, "no trial that has started")
        return _TimelineInfo([], [], {})
    criterion, baseline = criterion_of(study, criterion), get_baseline(study)
    lanes: dict[str, int] = {}
    now = max(time for view in found for time in _times(view))
    bars = []
    for view in sorted(found, key=lambda view: (_times(view)[0], view.number)):
        worker = view.worker or view.started_by or "unknown"
        start, *end = _times(view)
        bars.append(
            _Bar(
                view.number,
                lanes.setdefault(worker, len(lanes)),
                shown_stage(view.stage or NO_STAGE),
                start,
                max(start, end[0] if end else now),
                judged(view, criterion, baseline),
                not view.is_finished,
            )
        )
    return _TimelineInfo(bars, list(lanes), _stage_colors(bars))


def _times(view: TrialView) -> list[datetime.datetime]:
    times = (view.trial.datetime_start, view.trial.datetime_complete)
    return [time for time in times if time is not None]


def _stage_colors(bars: list[_Bar]) -> dict[str, str]:
    """A colour for each of the most frequent stages, and one for all others."""
    counts = Counter(bar.stage for bar in bars)
    kept = {stage for stage, _ in counts.most_common(len(_COLORS))}
    stages = [stage for stage in dict.fromkeys(bar.stage for bar in bars) if stage in kept]
    colors = dict(zip(stages, _COLORS, strict=False))
    return colors if len(kept) == len(counts) else {**colors, OTHER_STAGES: _OTHER}


def by_stage(info: _TimelineInfo) -> dict[str, list[_Bar]]:
    """The bars of each stage that has a colour.

    Args:
        info:
            What is drawn.
    """
    found: dict[str, list[_Bar]] = {stage: [] for stage in info.colors}
    for bar in info.bars:
        found[bar.stage if bar.stage in found else OTHER_STAGES].append(bar)
    return found


def plot_timeline(study: Searched, *, criterion: AccuracyCriterion | None = None) -> go.Figure:
    """Plot when each trial ran: a lane for each worker, a colour for each stage.

    Trials that still run are drawn up to the last time that the study holds.

    Example:
        .. code-block:: python

            figure = optuna_quant.visualization.plot_timeline(result.study)
            figure.show()

    Args:
        study:
            A study, or the result of a search.
        criterion:
            What trials that were evaluated in full are judged by. Default: that of the study, or
            at most 1% relative loss if it records none.

    Returns:
        The figure.

    Raises:
        ImportError:
            If Plotly is not installed.
    """
    graph_objects()
    return _get_timeline_plot(_get_timeline_info(study, criterion=criterion))


def _get_timeline_plot(info: _TimelineInfo) -> go.Figure:
    go = graph_objects()
    lanes = len(info.workers)
    figure = new_figure(TITLE, x=TIME, height=max(300, 200 + 40 * lanes), barmode="overlay")
    for stage, bars in by_stage(info).items():
        figure.add_trace(
            go.Bar(
                name=for_plotly(stage),
                orientation="h",
                base=[bar.start.isoformat() for bar in bars],
                # A trial that took no time is still to be seen.
                x=[max(1.0, (bar.end - bar.start).total_seconds() * 1000) for bar in bars],
                y=[bar.lane for bar in bars],
                width=0.7,
                marker={
                    "color": info.colors[stage],
                    "line": {"color": "white", "width": 1 if len(info.bars) <= 100 else 0},
                },
                hovertext=[_text(bar, info) for bar in bars],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(type="date")
    figure.update_yaxes(
        tickvals=list(range(lanes)),
        ticktext=[f"worker {lane}" for lane in range(lanes)],
        range=[lanes - 0.5, -0.5] if lanes else None,
        showgrid=False,
    )
    figure.update_layout(showlegend=True)
    return figure


def _text(bar: _Bar, info: _TimelineInfo) -> str:
    seconds = (bar.end - bar.start).total_seconds()
    return hover(
        trial=bar.trial,
        stage=bar.stage,
        worker=info.workers[bar.lane],
        seconds=f"{seconds:.3g}{', running' if bar.is_running else ''}",
        outcome=bar.outcome,
    )
