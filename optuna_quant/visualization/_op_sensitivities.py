"""The sensitivity and the gain of each op."""

from __future__ import annotations

from dataclasses import replace
import math
import os
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import MeasureObjective
from optuna_quant.costs.objective import show_measure
from optuna_quant.costs.study_costs import recorded_costs
from optuna_quant.samplers._models.option_scores import kept_scores
from optuna_quant.samplers._models.option_scores import merged
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.tuning.sensitivities.table import SensitivityTable
from optuna_quant.visualization._facts import has_quantized
from optuna_quant.visualization._facts import study_of
from optuna_quant.visualization._facts import warn_of_nothing
from optuna_quant.visualization._names import for_plotly
from optuna_quant.visualization._names import shortened
from optuna_quant.visualization._options import Precision
from optuna_quant.visualization._options import precision_of
from optuna_quant.visualization._options import present
from optuna_quant.visualization._plotly import graph_objects
from optuna_quant.visualization._plotly import hover
from optuna_quant.visualization._plotly import new_figure
from optuna_quant.visualization._units import Unit
from optuna_quant.visualization._units import unit_of


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna
    import plotly.graph_objects as go

    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.visualization._facts import Searched


TITLE = "Sensitivity of the model to each op"
SENSITIVITY = "Sensitivity (this op alone quantized)"
REST_COLOR = "#999999"

_SAVED = {
    LATENCY: "Time saved by it while all others are quantized",
    SIZE: "Bytes saved by it while all others are quantized",
}
# The sum of the rest is cut where it would be longer than the longest bar by more than this.
_LONGEST = 1.15


class _OpSensitivity(NamedTuple):
    op: str
    option: OpConfig
    sensitivity: float
    share: float
    gain: float | None


class _Rest(NamedTuple):
    ops: int
    sensitivity: float
    share: float
    gain: float | None


class _OpSensitivitiesInfo(NamedTuple):
    ops: list[_OpSensitivity]
    rest: _Rest | None
    gain: Unit | None
    measure: str | None


def _get_op_sensitivities_info(
    study: Searched,
    *,
    sensitivities: SensitivityTable | str | os.PathLike[str] | None = None,
    n_ops: int = 30,
    prefix: str = "quant",
) -> _OpSensitivitiesInfo:
    study = study_of(study)
    if isinstance(n_ops, bool) or not isinstance(n_ops, int) or n_ops < 1:
        raise ValueError(f"n_ops must be a positive integer, but got {n_ops!r}.")
    if sensitivities is None and not has_quantized(study):
        warn_of_nothing(study, "no trial of a quantized model")
        return _OpSensitivitiesInfo([], None, None, None)
    scores = _scores(study, sensitivities)
    space = _single_ops(recorded_space(study, prefix))
    measure, gains = _gains(study, space)
    unit = None if measure is None else unit_of(measure, gains.values(), name=_SAVED[measure])
    options = {t.name: _scored(t.quantized, scores.get(t.name, {})) for t in space.tunables}
    scored = [(op, option, scores[op][option.label]) for op, option in options.items() if option]
    total = math.fsum(score for _, _, score in scored) or 1.0
    found = [
        _OpSensitivity(op, option, score, score / total, gains.get(op))
        for op, option, score in scored
    ]
    if not found:
        raise ValueError(
            f"sensitivities: none of the ops of the study {study.study_name!r} has a score for "
            "an option of its space. Give those of the same model."
        )
    found.sort(key=lambda each: -each.sensitivity)
    return _OpSensitivitiesInfo(found[:n_ops], _rest(found[n_ops:]), unit, measure)


def _scores(
    study: optuna.Study, given: SensitivityTable | str | os.PathLike[str] | None
) -> Mapping[str, Mapping[str, float]]:
    if isinstance(given, SensitivityTable):
        return given.scores
    if given is not None:
        return SensitivityTable.load(given).scores
    kept = kept_scores(study)
    if not kept:
        raise ValueError(
            f"The study {study.study_name!r} holds no sensitivities: its strategy needs none, or "
            "keeps none by option. Measure them with optuna_quant.sensitivity() and give them as "
            "sensitivities=."
        )
    return merged(kept).scores


def _scored(options: tuple[OpConfig, ...], scores: Mapping[str, float]) -> OpConfig | None:
    """The first quantized option that has a score."""
    return next((option for option in options if option.label in scores), None)


def _single_ops(space: TuningSpace) -> TuningSpace:
    """The space with each op by itself."""
    tunables = (replace(t, name=op, ops=(op,)) for t in space.tunables for op in t.ops)
    return replace(space, tunables=tuple(tunables))


def _gains(study: optuna.Study, space: TuningSpace) -> tuple[str | None, dict[str, float]]:
    """What each op saves against FP32 while all others are quantized, where that is known."""
    costs = recorded_costs(study)
    measure = next((m for m in (LATENCY, SIZE) if costs and m in costs.tables), None)
    if measure is None:
        return None, {}
    table = KnownObjective(MeasureObjective(measure), space, costs).costs.tables[measure]
    found = op_gains(table, space, space.default(), own=True)
    gains = {op: each.gain for op, each in found.items()}
    return measure, gains


def _rest(left: list[_OpSensitivity]) -> _Rest | None:
    if not left:
        return None
    gains = [each.gain for each in left if each.gain is not None]
    return _Rest(
        len(left),
        math.fsum(each.sensitivity for each in left),
        math.fsum(each.share for each in left),
        math.fsum(gains) if gains else None,
    )


def entries_of(info: _OpSensitivitiesInfo) -> list[_OpSensitivity | _Rest]:
    """What has a bar, the largest first and the rest as the last.

    Args:
        info:
            What is drawn.
    """
    rest = [] if info.rest is None else [info.rest]
    return [*info.ops, *rest]


def bars(info: _OpSensitivitiesInfo) -> tuple[list[str], list[str]]:
    """The labels and the colours of the bars, the largest first.

    Args:
        info:
            What is drawn.
    """
    labels = shortened([each.op for each in info.ops])
    colors = [precision_of(each.option).color for each in info.ops]
    if info.rest is not None:
        labels.append(f"{info.rest.ops} other ops")
        colors.append(REST_COLOR)
    return labels, colors


def lengths_of(info: _OpSensitivitiesInfo) -> tuple[list[float], list[float | None]]:
    """The lengths of the bars of both panels; that of the rest is cut where it is too long.

    Args:
        info:
            What is drawn.
    """
    scores: list[float] = [each.sensitivity for each in info.ops]
    gains: list[float | None] = [each.gain for each in info.ops]
    if info.rest is not None:
        most = max(map(abs, scores), default=0.0), max((abs(g or 0.0) for g in gains), default=0.0)
        scores.append(min(info.rest.sensitivity, _LONGEST * most[0]))
        gain = info.rest.gain
        if gain is not None:
            gain = math.copysign(min(abs(gain), _LONGEST * most[1]), gain)
        gains.append(gain)
    if info.gain is None:
        return scores, []
    return scores, [None if gain is None else info.gain.scaled(gain) for gain in gains]


def rest_texts(info: _OpSensitivitiesInfo) -> tuple[str, str]:
    """What stands on the bars of the rest, since they may be cut.

    Args:
        info:
            What is drawn.
    """
    if info.rest is None:
        return "", ""
    gain = info.rest.gain
    saved = "" if gain is None or info.measure is None else show_measure(info.measure, gain)
    return f"{info.rest.sensitivity:.3g}", saved


def without_bar(lengths: Sequence[float | None]) -> list[str]:
    """What stands in the place of each bar that has no length: 0, or that it is not known.

    Args:
        lengths:
            The lengths of the bars.
    """
    return ["not known" if length is None else "" if length else "0" for length in lengths]


def precisions_of(info: _OpSensitivitiesInfo) -> list[Precision]:
    """The precisions that a legend explains: those of the options, if they are several.

    Args:
        info:
            What is drawn.
    """
    found = present(precision_of(each.option) for each in info.ops)
    return found if len(found) > 1 else []


def plot_op_sensitivities(
    study: Searched,
    *,
    sensitivities: SensitivityTable | str | os.PathLike[str] | None = None,
    n_ops: int = 30,
    prefix: str = "quant",
) -> go.Figure:
    """Plot how sensitive the model is to the quantization of each op, and what each saves.

    On the left is the sensitivity of the model to each op in its first quantized option, on the
    right the time or the bytes that quantizing it saves while all others are quantized. What is
    expensive to leave in FP32 and hardly sensitive should be quantized; the reverse is left.

    Example:
        .. code-block:: python

            result = optuna_quant.tune(...)
            figure = optuna_quant.visualization.plot_op_sensitivities(result.study)
            figure.show()

    Args:
        study:
            A study that a strategy of this library has searched, or the result of a search.
        sensitivities:
            A table that :func:`optuna_quant.sensitivity` has made, or the path of its file.
            Default: those that the study keeps.
        n_ops:
            How many ops have a bar of their own. The others are summed.
        prefix:
            What the names of the study's parameters begin with.

    Returns:
        The figure.

    Raises:
        ValueError:
            If the study keeps no sensitivities and none are given, or ``n_ops`` is not positive.
        ImportError:
            If Plotly is not installed.
    """
    graph_objects()
    info = _get_op_sensitivities_info(
        study, sensitivities=sensitivities, n_ops=n_ops, prefix=prefix
    )
    return _get_op_sensitivities_plot(info)


def _get_op_sensitivities_plot(info: _OpSensitivitiesInfo) -> go.Figure:
    go = graph_objects()
    labels, colors = bars(info)
    entries = entries_of(info)
    height = max(320, 150 + 20 * len(labels))
    figure = new_figure(TITLE, height=height, legend={"itemclick": False})
    places = list(range(len(labels)))
    texts = [_text(each, info) for each in entries]
    scores, gains = lengths_of(info)
    on_rest = rest_texts(info)
    shared = {
        "y": places,
        "orientation": "h",
        "hovertext": texts,
        "hoverinfo": "text",
        "marker_color": colors,
        "showlegend": False,
        "textposition": "inside",
        "insidetextanchor": "end",
        "textfont": {"color": "white"},
    }
    none = [""] * len(info.ops)
    figure.add_trace(go.Bar(x=scores, text=[*none, on_rest[0]][: len(labels)], **shared))
    figure.update_xaxes(title_text=_in_two_lines(SENSITIVITY), exponentformat="e", nticks=6)
    figure.update_yaxes(
        tickvals=places,
        ticktext=[for_plotly(label) for label in labels],
        autorange="reversed",
        automargin=True,
    )
    for precision in precisions_of(info):
        marker = {"symbol": "square", "size": 12, "color": precision.color}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", name=precision.name, marker=marker)
        )
    if info.gain is not None:
        text = [*none, on_rest[1]][: len(labels)]
        figure.add_trace(go.Bar(x=gains, text=text, xaxis="x2", **shared))
        if any(missing := without_bar(gains)):
            figure.add_trace(
                go.Scatter(
                    x=[0.0] * len(places),
                    y=places,
                    xaxis="x2",
                    mode="text",
                    text=missing,
                    textposition="middle right",
                    textfont={"size": 10, "color": REST_COLOR},
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        figure.update_layout(
            xaxis={"domain": [0, 0.48]},
            xaxis2={
                "domain": [0.54, 1],
                "anchor": "y",
                "title": _in_two_lines(info.gain.title),
                "nticks": 6,
            },
        )
    return figure


def _text(each: _OpSensitivity | _Rest, info: _OpSensitivitiesInfo) -> str:
    saved = None
    if each.gain is not None and info.measure is not None:
        saved = show_measure(info.measure, each.gain)
    facts = {"sensitivity": f"{each.sensitivity:.3g} ({each.share:.1%} of all)", "saves": saved}
    if isinstance(each, _Rest):
        return hover(ops=each.ops, **facts)
    return hover(op=each.op, option=each.option.label, **facts)


def _in_two_lines(title: str) -> str:
    """A title broken near its middle, so that those of two narrow axes stay apart."""
    spaces = [i for i, letter in enumerate(title) if letter == " "]
    middle = min(spaces, key=lambda i: abs(2 * i - len(title)))
    return f"{title[:middle]}<br>{title[middle + 1 :]}"
