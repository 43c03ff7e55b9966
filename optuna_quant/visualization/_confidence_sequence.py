"""What the samples of a trial said of its metric, one after the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import NamedTuple

import numpy as np

from optuna_quant.sequential.weighted_threshold import bounds
from optuna_quant.sequential.weighted_threshold import estimate
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import views
from optuna_quant.visualization._facts import answer_of
from optuna_quant.visualization._facts import criterion_of
from optuna_quant.visualization._facts import metric_name
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import trial_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._names import for_plotly
from optuna_quant.visualization._options import FP32
from optuna_quant.visualization._options import STATIC_8
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import new_figure
from optuna_quant.visualization._tradeoff import THRESHOLD_COLOR


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna
    import plotly.graph_objects as go

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.study.trial_view import TrialView
    from optuna_quant.visualization._facts import Searched


SAMPLES = "Samples seen"
LINE = STATIC_8.color
BASELINE_COLOR = FP32.color

_MOST_POINTS = 48
_SHOWN_TOLERANCES = 12.0
_NO_SCORES = (
    "so its interval cannot be drawn. Single samples are scored with tune(data=, metric=), or "
    "with an evaluation function that returns a score per sample."
)


class _Point(NamedTuple):
    samples: int
    estimate: float
    low: float
    high: float


class _ConfidenceSequenceInfo(NamedTuple):
    trial: int | None
    metric: str
    seen: list[_Point]
    of: int
    threshold: float
    baseline: float
    criterion: str
    error_probability: float


def _get_confidence_sequence_info(
    study: Searched, *, criterion: AccuracyCriterion | None = None, trial: int | None = None
) -> _ConfidenceSequenceInfo:
    study = study_of(study)
    criterion, baseline = criterion_of(study, criterion), get_baseline(study)
    view = None if trial is None else trial_of(study, trial)
    if view is None and (baseline is None or not _quantized(study)):
        warn_of_nothing(study, "no trial of a quantized model")
        return _ConfidenceSequenceInfo(
            None, "metric", [], 0, math.nan, math.nan, str(criterion), 0.0
        )
    population = read_population(study)
    if population is None or baseline is None:
        raise ValueError(
            f"The study {study.study_name!r} keeps no scores of single samples, {_NO_SCORES}"
        )
    view = _default(study, criterion) if view is None else view
    scores = _scores(study, view)
    if not len(scores):
        raise ValueError(
            f"trial: trial {view.number} of the study {study.study_name!r} has no scores of "
            f"single samples, {_NO_SCORES}"
        )
    normalized = population.normalized(scores)
    seen = []
    for count in _counts(len(normalized)):
        first = normalized[:count]
        ends = [population.metric(end) for end in bounds(population, first)]
        middle = population.metric(estimate(population, first))
        low, high = min(ends), max(ends)
        seen.append(_Point(count, min(max(middle, low), high), low, high))
    return _ConfidenceSequenceInfo(
        view.number,
        metric_name(study),
        seen,
        population.samples,
        criterion.threshold(baseline.value),
        baseline.value,
        str(criterion),
        population.error_probability,
    )


def _quantized(study: optuna.Study) -> list[TrialView]:
    return [view for view in views(study) if view.is_finished and view.is_quantized]


def _default(study: optuna.Study, criterion: AccuracyCriterion) -> TrialView:
    """The answer, or else the trial that has seen most."""
    number = answer_of(study, criterion)
    if number is not None:
        return trial_of(study, number)
    return max(_quantized(study), key=lambda view: (view.samples or 0, -view.number))


def _scores(study: optuna.Study, view: TrialView) -> NDArray[np.float64]:
    scores = view.scores
    if not len(scores) and view.reused_from is not None:
        return trial_of(study, view.reused_from).scores
    return scores


def _counts(samples: int) -> list[int]:
    """Numbers of samples at which to look: denser at the start, where most is decided."""
    found = np.geomspace(1, samples, _MOST_POINTS // 2)
    evenly = np.linspace(1, samples, _MOST_POINTS // 2)
    return sorted({round(float(each)) for each in (*found, *evenly)})


def title_of(info: _ConfidenceSequenceInfo) -> str:
    """The title.

    Args:
        info:
            What is drawn.
    """
    if info.trial is None:
        return "Metric by samples seen"
    metric = info.metric[:1].upper() + info.metric[1:]
    return f"{metric} of trial {info.trial} ({info.criterion.partition(',')[0]})"


def y_range(info: _ConfidenceSequenceInfo) -> tuple[float, float]:
    """The range of the vertical axis: where the outcome falls, not all of the first bounds.

    Args:
        info:
            What is drawn.
    """
    late = info.seen[len(info.seen) // 2 :]
    values = [info.threshold, info.baseline, *(each.estimate for each in late)]
    spread = max(values) - min(values)
    reach = max(_SHOWN_TOLERANCES * abs(info.baseline - info.threshold), 0.5 * spread)
    reach = reach or abs(info.baseline) or 1.0
    low, high = min(values) - reach, max(values) + reach
    lowest, highest = min(each.low for each in info.seen), max(each.high for each in info.seen)
    margin = 0.05 * (min(high, highest) - max(low, lowest))
    return max(low, lowest - margin), min(high, highest + margin)


def edges(info: _ConfidenceSequenceInfo) -> tuple[list[float], list[float]]:
    """The lower and the upper bounds; infinite ones end at the edge of the figure.

    Args:
        info:
            What is drawn.
    """
    bottom, top = y_range(info)
    low = [each.low if math.isfinite(each.low) else bottom for each in info.seen]
    high = [each.high if math.isfinite(each.high) else top for each in info.seen]
    return low, high


def interval_name(info: _ConfidenceSequenceInfo) -> str:
    """What the legend says of the interval.

    Args:
        info:
            What is drawn.
    """
    return f"confidence sequence ({1 - info.error_probability:.4g})"


def plot_confidence_sequence(
    study: Searched, *, criterion: AccuracyCriterion | None = None, trial: int | None = None
) -> go.Figure:
    """Plot between which values the metric of a trial is, by the number of samples seen.

    The interval is of the metric over all evaluation samples. It holds at all numbers of samples
    at once (a confidence sequence), so a trial may end as soon as it is beyond the threshold:
    that is what early stopping does. A bound without room for error is drawn where the rest of
    the samples cannot change the outcome.

    Example:
        .. code-block:: python

            figure = optuna_quant.visualization.plot_confidence_sequence(result.study, trial=3)
            figure.show()

    Args:
        study:
            A study whose metric was evaluated sample by sample, or the result of a search.
        criterion:
            What trials that were evaluated in full are judged by. Default: that of the study, or
            at most 1% relative loss if it records none.
        trial:
            The number of the trial. Default: the answer of the study, or the trial that comes
            closest; where none was evaluated in full, the one that has seen most samples.

    Returns:
        The figure.

    Raises:
        ValueError:
            If there is no such trial, or no scores of single samples.
        ImportError:
            If Plotly is not installed.
    """
    graph_objects()
    return _get_confidence_sequence_plot(
        _get_confidence_sequence_info(study, criterion=criterion, trial=trial)
    )


def _get_confidence_sequence_plot(info: _ConfidenceSequenceInfo) -> go.Figure:
    go = graph_objects()
    figure = new_figure(title_of(info), x=SAMPLES, y=info.metric, height=450)
    if not info.seen:
        return figure
    samples = [each.samples for each in info.seen]
    shared = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    low, high = edges(info)
    figure.add_trace(go.Scatter(x=samples, y=low, showlegend=False, **shared))
    figure.add_trace(
        go.Scatter(
            x=samples,
            y=high,
            fill="tonexty",
            fillcolor="rgba(0, 114, 178, 0.2)",
            name=interval_name(info),
            **shared,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=samples,
            y=[each.estimate for each in info.seen],
            mode="lines",
            line={"color": LINE, "width": 2},
            name="estimate",
            customdata=[[each.low, each.high] for each in info.seen],
            hovertemplate=(
                "samples: %{x}<br>estimate: %{y:.5g}<br>"
                "between %{customdata[0]:.5g} and %{customdata[1]:.5g}<extra></extra>"
            ),
        )
    )
    lines = (
        (info.threshold, THRESHOLD_COLOR, "dash", "threshold"),
        (info.baseline, BASELINE_COLOR, "dot", "FP32"),
    )
    for value, color, dash, name in lines:
        figure.add_trace(
            go.Scatter(
                x=[0, info.of],
                y=[value, value],
                mode="lines",
                line={"color": color, "width": 1.5, "dash": dash},
                name=for_plotly(name),
                hovertemplate=f"{for_plotly(name)}: {value:.6g}<extra></extra>",
            )
        )
    figure.update_xaxes(range=[0, max(1, info.of)])
    figure.update_yaxes(range=y_range(info))
    return figure
