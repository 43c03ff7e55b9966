"""When each trial ran, with Matplotlib."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from optuna_quant.visualization._facts import Judged
from optuna_quant.visualization._names import for_matplotlib
from optuna_quant.visualization._timeline import TIME
from optuna_quant.visualization._timeline import TITLE
from optuna_quant.visualization._timeline import _get_timeline_info
from optuna_quant.visualization._timeline import _TimelineInfo
from optuna_quant.visualization._timeline import by_stage
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import mark
from optuna_quant.visualization.matplotlib._pyplot import new_axes
from optuna_quant.visualization.matplotlib._pyplot import put_legend
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.visualization._facts import Searched


_FEW = 100
"""How many bars have room for a line around them, and for a marker that is easily seen."""


@experimental
def plot_timeline(study: Searched, *, criterion: AccuracyCriterion | None = None) -> Axes:
    """Plot when each trial ran: a lane for each worker, a colour for each stage.

    A marker above the end of a trial is what came of it; Plotly shows that under the mouse.
    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_timeline`.
    """
    pyplot()
    return _get_timeline_plot(_get_timeline_info(study, criterion=criterion))


def _get_timeline_plot(info: _TimelineInfo) -> Axes:
    lanes = len(info.workers)
    axes = new_axes(TITLE, x=TIME, size=(9.0, max(2.6, 1.8 + 0.4 * lanes)))
    if not lanes:
        return axes
    from matplotlib.dates import AutoDateLocator
    from matplotlib.dates import ConciseDateFormatter
    from matplotlib.dates import date2num

    least = datetime.timedelta(milliseconds=1)
    for stage, bars in by_stage(info).items():
        axes.barh(
            [bar.lane for bar in bars],
            [max(least, bar.end - bar.start) for bar in bars],  # type: ignore[arg-type]
            left=[bar.start for bar in bars],  # type: ignore[arg-type]
            height=0.7,
            color=info.colors[stage],
            edgecolor="white",
            linewidth=0.7 if len(info.bars) <= _FEW else 0,
            label=for_matplotlib(stage),
        )
    for outcome in (each for each in Judged if any(bar.outcome is each for bar in info.bars)):
        found = [bar for bar in info.bars if bar.outcome is outcome]
        ends = [float(date2num(bar.end)) for bar in found]  # type: ignore[no-untyped-call]
        few = len(info.bars) <= _FEW
        mark(axes, outcome, ends, [bar.lane - 0.43 for bar in found], size=20 if few else 6)
    locator = AutoDateLocator(minticks=4, maxticks=14)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_yticks(range(lanes), [f"worker {lane}" for lane in range(lanes)])
    axes.set_ylim(lanes - 0.5, -0.6)
    axes.grid(visible=False, axis="y")
    put_legend(axes)
    return axes
