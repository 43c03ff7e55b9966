"""Write what a dashboard shows of a study into the study itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant._common.extras import install_hint
from optuna_quant.dashboard.artifacts import upload_table
from optuna_quant.dashboard.careful import carefully
from optuna_quant.dashboard.deployable import ModelLimits
from optuna_quant.dashboard.figures import FIGURES
from optuna_quant.dashboard.model_uploads import ModelUploads
from optuna_quant.dashboard.note import merged
from optuna_quant.dashboard.note import study_note
from optuna_quant.dashboard.overview import Outcome
from optuna_quant.dashboard.overview import Overview
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.dashboard.trial_models import numbers_with_model
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.recorded_space import recorded_space


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


_logger = get_logger(__name__)

MOST_MODEL_BYTES = 50_000_000
"""Larger models are not uploaded unless that is asked for."""

MOST_TOTAL_BYTES = 500_000_000
"""The models of a study have no more bytes than this in all, unless that is asked for."""

MOST_FIGURE_BYTES = 200_000
"""The dashboard keeps figures in pieces of 2 kB, each of which is a write of its own."""


def publish(
    study: optuna.Study,
    *,
    figures: bool = True,
    artifact_store: ArtifactStore | None = None,
    backend: Backend | None = None,
    max_model_bytes: int = MOST_MODEL_BYTES,
    max_total_bytes: int = MOST_TOTAL_BYTES,
) -> None:
    """Write what optuna-dashboard shows of a study into the study.

    These are the name of the metric, a note with the outcome in words, the plots of
    ``optuna_quant.visualization``, and with an artifact store the configuration of the best trial
    as a table. With a backend, models are uploaded as artifacts of their trials: those that meet
    the criterion and are on the front of metric against cost, the answer first. Only what has
    changed is written. The note may be edited: what stands below the part that is written here is
    kept. A part that fails is a warning; nothing is raised for it.

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
            Builds the models that are missing, one for each trial on the front; models of trials
            that are on it no more are removed. Default: models stay as they are.
        max_model_bytes:
            The largest model that is uploaded; with 0 models stay as they are.
        max_total_bytes:
            The most bytes of all models of the study. Of more, the models that cost least are
            uploaded.

    Raises:
        ImportError:
            If optuna-dashboard is not installed.
        ValueError:
            If ``backend`` is given without ``artifact_store``, or a limit is negative.
    """
    limits = ModelLimits(each=max_model_bytes, total=max_total_bytes)
    check_options(artifact_store=artifact_store, backend=backend)
    uploads = None
    if artifact_store is not None and backend is not None and max_model_bytes:
        uploads = ModelUploads(study, artifact_store, limits, backend)
    publish_all(
        study, figures=figures, artifact_store=artifact_store, backend=backend, uploads=uploads
    )


def publish_all(
    study: optuna.Study,
    *,
    figures: bool,
    artifact_store: ArtifactStore | None,
    backend: Backend | None,
    uploads: ModelUploads | None,
) -> None:
    """Publish a study, see :func:`publish`.

    Args:
        study:
            The study.
        figures:
            Whether to write plots.
        artifact_store:
            Where files go.
        backend:
            Builds what is missing.
        uploads:
            What uploads models; None to leave them as they are.
    """
    overview = carefully(f"The study {study.study_name!r}", lambda: read_overview(study))
    if overview is None:
        return
    space, best = space_of(study), overview.best
    if uploads is not None:
        complete = uploads.complete
        answer = best if overview.outcome == Outcome.MET else None
        refuted = best if overview.outcome == Outcome.NOT_REPEATED else None
        carefully("The models", lambda: complete(space, best=answer, refuted=refuted))
    carefully("The metric's name", lambda: _name_metric(study, overview))
    carefully("The note", lambda: write_note(study, overview, space))
    if figures:
        for name, draw in FIGURES.items():
            carefully(f"The figure {name!r}", partial(_write_figure, study, name, draw))
    if artifact_store is not None and space is not None and best is not None:
        upload = upload_table
        knows = backend if overview.outcome == Outcome.MET else None
        carefully(
            "The artifacts", lambda: upload(study, best, space, artifact_store, backend=knows)
        )


def check_options(*, artifact_store: ArtifactStore | None, backend: Backend | None) -> None:
    """Refuse options that do not fit, and a missing dashboard."""
    if backend is not None and artifact_store is None:
        raise ValueError("backend is given, but no artifact_store to which its models could go.")
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
        models=numbers_with_model(study),
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
