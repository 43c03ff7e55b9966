"""All plots by name, and saving one to a file."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
import warnings

from optuna.exceptions import ExperimentalWarning

from optuna_quant import visualization
from optuna_quant._common.nearest import did_you_mean
from optuna_quant.visualization import matplotlib
from optuna_quant.visualization.matplotlib._pyplot import pyplot


if TYPE_CHECKING:
    from optuna_quant.backends.base import HasGraph
    from optuna_quant.backends.default import ModelLike
    from optuna_quant.visualization._facts import Searched


SUFFIXES = (".html", ".png", ".svg", ".pdf")
"""The files that a plot can be saved to."""


@dataclass(frozen=True)
class Plot:
    """A plot.

    Args:
        about:
            What it shows, in a line.
        draw:
            Draws it with Plotly.
        draw_with_matplotlib:
            Draws it with Matplotlib.
        needs_model:
            Whether it takes the model after the study; of a result it needs none.
        takes_trial:
            Whether it takes the number of a trial, as ``trial``.
    """

    about: str
    draw: Callable[..., Any]
    draw_with_matplotlib: Callable[..., Any]
    needs_model: bool = False
    takes_trial: bool = False


def _plot(name: str, about: str, **options: bool) -> Plot:
    function = f"plot_{name}"
    return Plot(about, getattr(visualization, function), getattr(matplotlib, function), **options)


PLOTS: Mapping[str, Plot] = MappingProxyType(
    {
        "op_sensitivities": _plot(
            "op_sensitivities", "how sensitive the model is to each op, and what each saves"
        ),
        "precisions": _plot("precisions", "in which precision each op was in each trial"),
        "timeline": _plot("timeline", "when each trial ran, by worker and stage"),
        "tradeoff": _plot("tradeoff", "metric against cost, with the criterion and the front"),
        "confidence_sequence": _plot(
            "confidence_sequence",
            "between which values a trial's metric is, by the samples seen",
            takes_trial=True,
        ),
        "model_graph": _plot(
            "model_graph",
            "the model's graph, coloured by precision",
            needs_model=True,
            takes_trial=True,
        ),
        "cost_prediction": _plot(
            "cost_prediction", "what the cost table predicts against what was measured"
        ),
    }
)
"""The plots, by name."""


def save_plot(
    study: Searched,
    kind: str,
    path: str | os.PathLike[str],
    *,
    model: ModelLike | HasGraph | None = None,
    trial: int | None = None,
    dpi: int = 150,
) -> None:
    """Save a plot of a study to a file.

    A page (``.html``) is drawn by Plotly, holds all that it needs and shows details under the
    mouse; images are drawn by Matplotlib, which needs no browser.

    Args:
        study:
            The study, or the result of a search.
        kind:
            Which plot, a name of :data:`PLOTS`.
        path:
            The file. Its suffix says what it becomes, one of :data:`SUFFIXES`.
        model:
            The model of the study, a path or a backend, for a plot that needs it. A result knows
            its own.
        trial:
            The number of the trial, for a plot that is of one. Default: as the plot chooses.
        dpi:
            The resolution of an image of dots.

    Raises:
        ValueError:
            If there is no such plot or suffix, the plot needs a model and none is given, or does
            not take a trial; or as the plot says.
        ImportError:
            If Plotly or Matplotlib is not installed.
        OSError:
            If the file cannot be written.
    """
    if kind not in PLOTS:
        raise ValueError(
            f"kind must be one of {', '.join(PLOTS)}, but got {kind!r}."
            f"{did_you_mean(kind, list(PLOTS))}"
        )
    plot, file = PLOTS[kind], Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"path must end with one of {', '.join(SUFFIXES)}, but got {os.fspath(path)!r}."
        )
    if trial is not None and not plot.takes_trial:
        raise ValueError(f"trial: the plot {kind!r} is of all trials, so it takes none.")
    given = (model,) if plot.needs_model else ()
    options = {"trial": trial} if plot.takes_trial else {}
    if suffix == ".html":
        plot.draw(study, *given, **options).write_html(file, include_plotlyjs=True)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = plot.draw_with_matplotlib(study, *given, **options)
    try:
        axes.figure.savefig(file, bbox_inches="tight", dpi=dpi)
    finally:
        pyplot().close(axes.figure)
