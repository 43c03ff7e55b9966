"""The sensitivity and the gain of each op, with Matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.visualization._names import for_matplotlib
from optuna_quant.visualization._op_sensitivities import SENSITIVITY
from optuna_quant.visualization._op_sensitivities import TITLE
from optuna_quant.visualization._op_sensitivities import _get_op_sensitivities_info
from optuna_quant.visualization._op_sensitivities import _OpSensitivitiesInfo
from optuna_quant.visualization._op_sensitivities import bars
from optuna_quant.visualization._op_sensitivities import lengths_of
from optuna_quant.visualization._op_sensitivities import precisions_of
from optuna_quant.visualization._op_sensitivities import rest_texts
from optuna_quant.visualization._op_sensitivities import without_bar
from optuna_quant.visualization.matplotlib._pyplot import FONT
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import put_legend
from optuna_quant.visualization.matplotlib._pyplot import pyplot
from optuna_quant.visualization.matplotlib._pyplot import style


if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

    from optuna_quant.tuning.sensitivities.table import SensitivityTable
    from optuna_quant.visualization._facts import Searched


@experimental
def plot_op_sensitivities(
    study: Searched,
    *,
    sensitivities: SensitivityTable | str | os.PathLike[str] | None = None,
    n_ops: int = 30,
    prefix: str = "quant",
) -> Axes:
    """Plot how sensitive the model is to each op, and what each saves, with Matplotlib.

    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_op_sensitivities`.
    """
    pyplot()
    info = _get_op_sensitivities_info(
        study, sensitivities=sensitivities, n_ops=n_ops, prefix=prefix
    )
    return _get_op_sensitivities_plot(info)


def _get_op_sensitivities_plot(info: _OpSensitivitiesInfo) -> Axes:
    labels, colors = bars(info)
    scores, gains = lengths_of(info)
    panels = 1 if info.gain is None else 2
    _, found = pyplot().subplots(
        1,
        panels,
        figsize=(9.0, max(3.0, 1.2 + 0.21 * len(labels))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    axes: Axes = found[0][0]
    axes.set_title(TITLE, fontsize=11, loc="left")
    style(axes, x=SENSITIVITY, y="")
    places = range(len(labels))
    bars_of_scores = axes.barh(places, scores, color=colors)
    _write_on_rest(axes, bars_of_scores, rest_texts(info)[0])
    axes.set_yticks(places, [for_matplotlib(label) for label in labels], fontsize=FONT - 1)
    if labels:
        axes.set_ylim(len(labels) - 0.4, -0.6)
    if info.gain is not None:
        style(found[0][1], x=info.gain.title, y="")
        lengths = [math.nan if gain is None else gain for gain in gains]
        bars_of_gains = found[0][1].barh(places, lengths, color=colors)
        _write_on_rest(found[0][1], bars_of_gains, rest_texts(info)[1])
        for place, text in zip(places, without_bar(gains), strict=True):
            found[0][1].text(0.0, place, f" {text}", va="center", fontsize=FONT - 2, color="gray")
    precisions = precisions_of(info)
    if precisions:
        from matplotlib.patches import Patch

        handles = [Patch(color=each.color, label=each.name) for each in precisions]
        put_legend(found[0][-1], handles)
    return axes


def _write_on_rest(axes: Axes, bars: Any, text: str) -> None:
    """Write on the last bar, if there is something to write."""
    if text:
        last = [""] * (len(bars) - 1) + [text]
        axes.bar_label(bars, last, label_type="center", color="white", fontsize=FONT - 1)
