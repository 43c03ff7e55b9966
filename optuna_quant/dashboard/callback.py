"""Publish a study to optuna-dashboard while it is searched."""

from __future__ import annotations

from dataclasses import replace
import threading
import time
from typing import TYPE_CHECKING

from optuna_quant.dashboard.careful import carefully
from optuna_quant.dashboard.deployable import ModelLimits
from optuna_quant.dashboard.model_uploads import ModelUploads
from optuna_quant.dashboard.overview import fp32_measures
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.dashboard.publish import MOST_MODEL_BYTES
from optuna_quant.dashboard.publish import MOST_TOTAL_BYTES
from optuna_quant.dashboard.publish import check_options
from optuna_quant.dashboard.publish import publish_all
from optuna_quant.dashboard.publish import space_of
from optuna_quant.dashboard.publish import write_note
from optuna_quant.dashboard.trial_words import TrialWords
from optuna_quant.study import record
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import RunningTrialWriter
from optuna_quant.tuning.recorded_study import RecordedTrials


if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.storages.artifacts import ArtifactStore


SHARE = 0.005
"""What part of the time the notes of a running search may take."""

LEGACY_CONSTRAINTS = "constraints"
"""The trial's system attribute in which optuna-dashboard looks for constraints, as a list."""


class PublishToDashboard:
    """Callback that keeps what optuna-dashboard shows of a study up to date.

    While a trial runs, it adds short user attributes to it (``stage``, ``result``, ``gain``,
    ``configuration``) and its feasibility in the form that the dashboard reads, in the transaction
    that the trial is written in anyway. After trials it writes the note of the study, so rarely
    that all notes together take at most half a percent of the time. At the end it writes the
    note once more, and what else was asked for.

    With an artifact store, models are uploaded as artifacts of their trials: those that meet the
    criterion and are on the front of metric against cost. They come from the trials that have just
    built them, as far as that takes another half a percent of the time, and the rest at the end;
    models that are on the front no more are removed.

    Whatever fails here is a warning, and the search continues.

    Example:

        .. code-block:: python

            store = optuna.artifacts.FileSystemArtifactStore("artifacts")
            publisher = PublishToDashboard(artifact_store=store)
            optuna_quant.tune(model, ..., storage="search.journal", callbacks=[publisher])

        :func:`~optuna_quant.tune` calls all methods by itself. With an objective of your own, have
        them called in each trial, and at the end of the search:

        .. code-block:: python

            objective = QuantObjective(
                ..., annotate=publisher.annotate, on_met=publisher.offer
            )
            study.optimize(objective, callbacks=[publisher])
            publisher.finish(study)

    Args:
        interval:
            How many seconds are at least between two notes.
        figures:
            Whether to write plots at the end, see :func:`publish`: that takes a second or two.
        artifact_store:
            Where models and other files go, see :func:`publish`.
        backend:
            Builds the models that are still missing at the end. Default: that of the search, if
            :func:`~optuna_quant.tune` runs it.
        max_model_bytes:
            The largest model that is uploaded; 0 to upload none.
        max_total_bytes:
            The most bytes of all models of a study, see :func:`publish`.

    Raises:
        ImportError:
            If optuna-dashboard is not installed.
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        *,
        interval: float = 30.0,
        figures: bool = False,
        artifact_store: ArtifactStore | None = None,
        backend: Backend | None = None,
        max_model_bytes: int = MOST_MODEL_BYTES,
        max_total_bytes: int = MOST_TOTAL_BYTES,
    ) -> None:
        if not interval >= 0:
            raise ValueError(f"interval must not be negative, but got {interval}.")
        self._limits = ModelLimits(each=max_model_bytes, total=max_total_bytes)
        check_options(artifact_store=artifact_store, backend=backend)
        self._interval = interval
        self._figures = figures
        self._artifact_store = artifact_store
        self._backend = backend
        self._of_search: Backend | None = None
        self._uploads: tuple[str, ModelUploads] | None = None
        self._lock = threading.Lock()
        self._lock_of_uploads = threading.Lock()
        self._next = time.monotonic() + min(interval, 5.0)
        self._words: tuple[str, TrialWords] | None = None

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Upload models and write the note of the study, as far as there is time for it."""
        uploads = self._uploads_of(study)
        if uploads is not None:
            carefully("The models", uploads.upload_held)
        if time.monotonic() < self._next or not self._lock.acquire(blocking=False):
            return
        try:
            started = time.monotonic()
            carefully("The note", lambda: self._write_note(study))
            ended = time.monotonic()
            self._next = ended + max(self._interval, (ended - started) / SHARE)
        finally:
            self._lock.release()

    def begin(self, backend: Backend) -> None:
        """Get to know what builds the models of a search.

        Args:
            backend:
                The backend.
        """
        self._of_search, self._uploads = backend, None

    def offer(self, trial: optuna.Trial, model: Model) -> None:
        """Get a model that meets the criterion, to be uploaded if it is on the front.

        Args:
            trial:
                The trial, while it runs.
            model:
                Its model.
        """
        uploads = self._uploads_of(trial.study)
        if uploads is not None:
            number = trial.number
            carefully(f"The model of trial {number}", lambda: uploads.offer(number, model))

    def annotate(self, trial: optuna.Trial) -> None:
        """Add to a trial what the dashboard shows of it; the last that its objective does.

        Args:
            trial:
                The trial, while it runs.
        """
        carefully(f"Trial {trial.number}", lambda: self._annotate(trial))

    def finish(self, study: optuna.Study) -> None:
        """Publish all there is; at the end of a search.

        Args:
            study:
                The study.
        """
        carefully(
            "The study",
            lambda: publish_all(
                study,
                figures=self._figures,
                artifact_store=self._artifact_store,
                backend=self._builder,
                uploads=self._uploads_of(study),
            ),
        )

    @property
    def _builder(self) -> Backend | None:
        return self._of_search if self._backend is None else self._backend

    def _uploads_of(self, study: optuna.Study) -> ModelUploads | None:
        """What uploads the models of a study; None if no models are wanted."""
        if self._artifact_store is None or self._limits.each == 0:
            return None
        with self._lock_of_uploads:
            known = self._uploads
            if known is None or known[0] != study.study_name:
                known = (
                    study.study_name,
                    ModelUploads(study, self._artifact_store, self._limits, self._builder),
                )
                self._uploads = known
            return known[1]

    def _write_note(self, study: optuna.Study) -> None:
        write_note(study, read_overview(study), self._words_of(study).space)

    def _annotate(self, trial: optuna.Trial) -> None:
        view = TrialView.of_running(trial)
        writer = RunningTrialWriter(trial)
        for name, text in self._words_of(trial.study).of(view).items():
            writer.user_attr(name, text)
        found = legacy_constraints(trial.constraints)
        if found:
            writer.system_attr(LEGACY_CONSTRAINTS, found)

    def _words_of(self, study: optuna.Study) -> TrialWords:
        known = self._words
        if known is not None and known[0] == study.study_name:
            if known[1].fp32:
                return known[1]
            words = replace(known[1], fp32=fp32_measures(study))  # They come with the baseline.
        else:
            words = TrialWords(
                criterion=RecordedTrials(study).criterion,
                fp32=fp32_measures(study),
                space=space_of(study),
                left_out=len(recorded_left_out(study)),
            )
        self._words = study.study_name, words
        return words


def legacy_constraints(constraints: Mapping[str, float]) -> list[float]:
    """Constraints of a trial in the form that optuna-dashboard reads.

    They have the same values as those that Optuna 5 reads, so what is feasible is the same.
    """
    names = (record.ACCURACY, record.QUANTIZED, record.UNJUDGED)
    return [float(constraints[name]) for name in names if name in constraints]
