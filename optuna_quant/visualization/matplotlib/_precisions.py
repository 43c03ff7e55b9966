"""In which precision each op was in each trial, with Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.visualization._names import for_matplotlib
from optuna_quant.visualization._names import shortened
from optuna_quant.visualization._options import PRECISIONS
from optuna_quant.visualization._options import present
from optuna_quant.visualization._plotly import thinned
from optuna_quant.visualization._precisions import MOST_LABELS
from optuna_quant.visualization._precisions import TITLE
from optuna_quant.visualization._precisions import _get_precisions_info
from optuna_quant.visualization._precisions import _PrecisionsInfo
from optuna_quant.visualization._precisions import outcome_rows
from optuna_quant.visualization._precisions import top_of
from optuna_quant.visualization._precisions import trials_of
from optuna_quant.visualization.matplotlib._pyplot import FONT
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import mark
from optuna_quant.visualization.matplotlib._pyplot import new_axes
from optuna_quant.visualization.matplotlib._pyplot import put_legend
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.visualization._facts import Searched


@experimental
def plot_precisions(
    study: Searched, *, criterion: AccuracyCriterion | None = None, prefix: str = "quant"
) -> Axes:
    """Plot in which precision each op was in each trial, as a heat map, with Matplotlib.

    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_precisions`.
    """
    pyplot()
    return _get_precisions_plot(_get_precisions_info(study, criterion=criterion, prefix=prefix))


def _get_precisions_plot(info: _PrecisionsInfo) -> Axes:
    rows, columns = len(info.ops), len(info.trials)
    height = min(10.0, max(3.6, 1.6 + 0.21 * rows))
    axes = new_axes(TITLE, x="Trial", size=(9.0, height))
    axes.grid(visible=False)
    if not rows:
        return axes
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    positions = {each: place for place, each in enumerate(PRECISIONS)}
    cells = [[positions[each] for each in row] for row in info.precisions]
    axes.pcolormesh(
        [place - 0.5 for place in range(columns + 1)],
        [place - 0.5 for place in range(rows + 1)],
        cells,
        cmap=ListedColormap([each.color for each in PRECISIONS]),
        vmin=-0.5,
        vmax=len(PRECISIONS) - 0.5,
        edgecolors="white" if rows <= MOST_LABELS and columns <= MOST_LABELS else "none",
        linewidth=0.5,
    )
    handles: list[Artist] = []
    for outcome, row in outcome_rows(info).items():
        found = trials_of(info, outcome)
        size = 36 if columns <= MOST_LABELS else 9
        handles.append(mark(axes, outcome, found, [row] * len(found), size=size))
    shown = present(each for row in info.precisions for each in row)
    handles += [Patch(color=each.color, label=each.name) for each in shown]
    names = [for_matplotlib(name) for name in shortened(info.ops)]
    places, numbers = thinned(info.ops, MOST_LABELS), thinned(info.trials, 16)
    size = FONT - 1 if rows <= MOST_LABELS else FONT - 3
    axes.set_yticks(places, [names[place] for place in places], fontsize=size)
    axes.set_xticks(numbers, [str(info.trials[place]) for place in numbers])
    axes.set_xlim(-0.7, columns - 0.3)
    axes.set_ylim(rows - 0.5, top_of(info))
    put_legend(axes, handles)
    return axes
