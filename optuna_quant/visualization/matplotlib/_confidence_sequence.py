"""What the samples of a trial said of its metric, with Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.visualization._confidence_sequence import BASELINE_COLOR
from optuna_quant.visualization._confidence_sequence import LINE
from optuna_quant.visualization._confidence_sequence import SAMPLES
from optuna_quant.visualization._confidence_sequence import _ConfidenceSequenceInfo
from optuna_quant.visualization._confidence_sequence import _get_confidence_sequence_info
from optuna_quant.visualization._confidence_sequence import edges
from optuna_quant.visualization._confidence_sequence import interval_name
from optuna_quant.visualization._confidence_sequence import title_of
from optuna_quant.visualization._confidence_sequence import y_range
from optuna_quant.visualization._names import for_matplotlib
from optuna_quant.visualization._tradeoff import THRESHOLD_COLOR
from optuna_quant.visualization.matplotlib._pyplot import experimental
from optuna_quant.visualization.matplotlib._pyplot import new_axes
from optuna_quant.visualization.matplotlib._pyplot import put_legend
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.visualization._facts import Searched


@experimental
def plot_confidence_sequence(
    study: Searched, *, criterion: AccuracyCriterion | None = None, trial: int | None = None
) -> Axes:
    """Plot between which values the metric of a trial is, by the number of samples seen.

    For the arguments and errors see
    :func:`optuna_quant.visualization.plot_confidence_sequence`.
    """
    pyplot()
    return _get_confidence_sequence_plot(
        _get_confidence_sequence_info(study, criterion=criterion, trial=trial)
    )


def _get_confidence_sequence_plot(info: _ConfidenceSequenceInfo) -> Axes:
    axes = new_axes(
        for_matplotlib(title_of(info)), x=SAMPLES, y=for_matplotlib(info.metric), size=(9.0, 4.2)
    )
    if not info.seen:
        return axes
    samples = [each.samples for each in info.seen]
    axes.fill_between(
        samples,
        *edges(info),
        color=LINE,
        alpha=0.2,
        linewidth=0,
        label=interval_name(info),
    )
    axes.plot(samples, [each.estimate for each in info.seen], color=LINE, label="estimate")
    axes.axhline(info.threshold, color=THRESHOLD_COLOR, linestyle="--", label="threshold")
    axes.axhline(info.baseline, color=BASELINE_COLOR, linestyle=":", label="FP32")
    axes.set_xlim(0, max(1, info.of))
    axes.set_ylim(*y_range(info))
    put_legend(axes)
    return axes
