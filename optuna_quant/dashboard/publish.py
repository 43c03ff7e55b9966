"""Write what a dashboard shows of a study into the study itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant._common.extras import install_hint
from optuna_quant.dashboard.artifacts import upload_answer
from optuna_quant.dashboard.figures import FIGURES
from optuna_quant.dashboard.note import merged
from optuna_quant.dashboard.note import study_note
from optuna_quant.dashboard.overview import Outcome
from optuna_quant.dashboard.overview import Overview
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.recorded_space import recorded_space


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


_Result = TypeVar("_Result")

_logger = get_logger(__name__)

MOST_MODEL_BYTES = 50_000_000
"""Larger models are not uploaded unless that is asked for."""

MOST_FIGURE_BYTES = 200_000
"""The dashboard keeps figures in pieces of 2 kB, each of which is a write of its own."""


def publish(
    study: optuna.Study,
    *,
    figures: bool = True,
    artifact_store: ArtifactStore | None = None,
    backend: Backend | None = None,
    max_model_bytes: int = MOST_MODEL_BYTES,
) -> None:
    """Write what optuna-dashboard shows of a study into the study.

    These are the name of the metric, a note with the outcome in words, the plots of
    ``optuna_quant.visualization``, and with an artifact store the configuration of the best trial
    as a table. Only what has changed is written. The note may be edited: what stands below the
    part that is written here is kept. A part that fails is a warning; nothing is raised for it.

    What the dashboard shows of each trial cannot be written once the trial has ended: that is
    done by :class:`PublishToDashboard` during a search, or shown by ``optuna-quant dashboard``.

    Args:
        study:
            The study.
        figures:
            Whether to write plots. They need Plotly, and are up to a hundred small writes each.
        artifact_store:
            Where files go, a store of :mod:`optuna.artifacts`; give the dashboard the same one.
        backend:
            Builds the model of the best trial, which is uploaded if it meets the criterion.
        max_model_bytes:
            The largest model that is uploaded.

    Raises:
        ImportError:
            If optuna-dashboard is not installed.
        ValueError:
            If ``backend`` is given without ``artifact_store``, or ``max_model_bytes`` is
            negative.
    """
    check_options(artifact_store=artifact_store, backend=backend, max_model_bytes=max_model_bytes)
    overview = carefully(f"The study {study.study_name!r}", lambda: read_overview(study))
    if overview is None:
        return
    space = space_of(study)
    carefully("The metric's name", lambda: _name_metric(study, overview))
    carefully("The note", lambda: write_note(study, overview, space))
    if figures:
        for name, draw in FIGURES.items():
            carefully(f"The figure {name!r}", partial(_write_figure, study, name, draw))
    best = overview.best
    if artifact_store is not None and space is not None and best is not None:
        upload = upload_answer
        carefully(
            "The artifacts",
            lambda: upload(
                study,
                best,
                space,
                artifact_store,
                backend=backend if overview.outcome == Outcome.MET else None,
                max_model_bytes=max_model_bytes,
            ),
        )


def check_options(
    *, artifact_store: ArtifactStore | None, backend: Backend | None, max_model_bytes: int
) -> None:
    """Refuse options that do not fit, and a missing dashboard."""
    if backend is not None and artifact_store is None:
        raise ValueError("backend is given, but no artifact_store to which its models could go.")
    if max_model_bytes < 0:
        raise ValueError(f"max_model_bytes must not be negative, but got {max_model_bytes}.")
    need_dashboard()


def need_dashboard() -> ModuleType:
    """The package optuna-dashboard.

    Raises:
        ImportError:
            If it is not installed.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise ImportError(
            f"optuna-dashboard is not installed: {install_hint('dashboard')}."
        ) from error
    found: ModuleType = optuna_dashboard
    return found


def carefully(what: str, do: Callable[[], _Result]) -> _Result | None:
    """Do something that must not end a search; what goes wrong is a warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return do()
    except Exception as error:
        _logger.warning(f"{what} was not published to the dashboard: {error}")
        return None


def space_of(study: optuna.Study) -> TuningSpace | None:
    """The tuning space that a study keeps; None if it keeps none that can be read."""
    try:
        return recorded_space(study)
    except ValueError:
        return None


def write_note(study: optuna.Study, overview: Overview, space: TuningSpace | None) -> None:
    """Write the note of a study, if it says something new."""
    dashboard = need_dashboard()
    number = _optuna.study_identity(study)[1]
    note = study_note(
        overview,
        space,
        left_out=len(recorded_left_out(study)),
        link=f"/dashboard/studies/{number}/trials?numbers=",
    )
    before = dashboard.get_note(study)
    after = merged(before, note)
    if after != before:
        dashboard.save_note(study, after)


def _name_metric(study: optuna.Study, overview: Overview) -> None:
    """Name the objectives, unless the study has names."""
    if study.metric_names:
        return
    others = [overview.objective.name, *map(str, range(1, len(study.directions)))]
    names = [overview.metric_name, *others][: len(study.directions)]
    study.set_metric_names(names)


def _write_figure(study: optuna.Study, name: str, draw: Callable[[optuna.Study], Any]) -> None:
    figure = draw(study)
    if figure is None or not figure.data:
        return
    figure.update_layout(height=None, width=None)
    text = figure.to_json()
    if len(text) > MOST_FIGURE_BYTES:
        # What is shown under the mouse is most of it.
        figure.update_traces(text=None, hovertext=None, customdata=None, hovertemplate=None)
        text = figure.to_json()
    if len(text) > MOST_FIGURE_BYTES:
        _logger.info(f"The figure {name!r} is left out: it has {len(text)} bytes.")
        return
    if text != stored_figure(study, name):
        need_dashboard().save_plotly_graph_object(study, figure, graph_object_id=name)


def stored_figure(study: optuna.Study, name: str) -> str:
    """A figure as the study keeps it; empty if it has none of this name."""
    prefix = f"dashboard:plot_data:{name}:"
    attrs = _optuna.study_system_attrs(study)
    pieces = [attrs.get(f"{prefix}{i}", "") for i in range(sum(map(_is_of(prefix), attrs)))]
    return "".join(pieces)


def _is_of(prefix: str) -> Callable[[str], bool]:
    return lambda key: key.startswith(prefix)
