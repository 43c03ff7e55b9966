"""The graph of a model, coloured by the precision of its ops, with Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.visualization._model_graph import EDGE_COLOR
from optuna_quant.visualization._model_graph import JOIN
from optuna_quant.visualization._model_graph import JOIN_COLOR
from optuna_quant.visualization._model_graph import _get_model_graph_info
from optuna_quant.visualization._model_graph import _ModelGraphInfo
from optuna_quant.visualization._model_graph import size_of
from optuna_quant.visualization._model_graph import title_of
from optuna_quant.visualization._names import for_matplotlib
from optuna_quant.visualization._options import present
from optuna_quant.visualization.matplotlib._pyplot import FONT
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import new_axes
from optuna_quant.visualization.matplotlib._pyplot import put_legend
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optuna_quant.backends.base import HasGraph
    from optuna_quant.backends.default import ModelLike
    from optuna_quant.visualization._facts import Searched


@experimental
def plot_model_graph(
    study: Searched,
    model: ModelLike | HasGraph | None = None,
    *,
    trial: int | None = None,
    collapse: bool | None = None,
    prefix: str = "quant",
) -> Axes:
    """Plot the graph of the model, each op in the colour of its precision in a trial.

    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_model_graph`.
    """
    pyplot()
    info = _get_model_graph_info(study, model, trial=trial, collapse=collapse, prefix=prefix)
    return _get_model_graph_plot(info)


def _get_model_graph_plot(info: _ModelGraphInfo) -> Axes:
    width, height = size_of(info)
    inches = 0.29 if info.labels or len(info.cells) < 300 else 0.23
    size = (max(4.4, 1.6 + inches * width), max(3.0, 0.8 + 1.15 * inches * height))
    axes = new_axes(title_of(info), size=size)
    axes.set_axis_off()
    if not info.cells:
        return axes
    from matplotlib.collections import LineCollection

    lines = [[(x0, y0), (x1, y1)] for x0, y0, x1, y1 in info.edges]
    axes.add_collection(LineCollection(lines, colors=EDGE_COLOR, linewidths=1.2, zorder=1))
    for precision in present(cell.precision for cell in info.cells):
        cells = [cell for cell in info.cells if cell.precision == precision]
        axes.scatter(
            [cell.x for cell in cells],
            [cell.y for cell in cells],
            s=(0.7 * 72 * inches) ** 2,
            marker="s",
            color=precision.color,
            label=precision.name,
            zorder=2,
        )
    if info.joins:
        xs, ys = [join.x for join in info.joins], [join.y for join in info.joins]
        axes.scatter(xs, ys, s=18, color=JOIN_COLOR, label=JOIN, zorder=2)
    for label in info.labels:
        text = for_matplotlib(label.text)
        axes.text(label.x, label.y, text, fontsize=FONT - 1, va="center")
    axes.set_xlim(-1, width - 1)
    axes.set_ylim(height - 1, -1)
    put_legend(axes, marker_scale=0.6)
    return axes
