"""Publish a study to optuna-dashboard while it is searched."""

from __future__ import annotations

from dataclasses import replace
import threading
import time
from typing import TYPE_CHECKING

from optuna_quant.dashboard.overview import fp32_measures
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.dashboard.publish import MOST_MODEL_BYTES
from optuna_quant.dashboard.publish import carefully
from optuna_quant.dashboard.publish import check_options
from optuna_quant.dashboard.publish import publish
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

    Whatever fails here is a warning, and the search continues.

    Example:

        .. code-block:: python

            store = optuna.artifacts.FileSystemArtifactStore("artifacts")
            publisher = PublishToDashboard(artifact_store=store)
            optuna_quant.tune(model, ..., storage="search.journal", callbacks=[publisher])

        :func:`~optuna_quant.tune` calls :meth:`annotate` and :meth:`finish` by itself. With an
        objective of your own, call them at the end of each trial, and of the search:

        .. code-block:: python

            objective = QuantObjective(..., annotate=publisher.annotate)
            study.optimize(objective, callbacks=[publisher])
            publisher.finish(study)

    Args:
        interval:
            How many seconds are at least between two notes.
        figures:
            Whether to write plots at the end, see :func:`publish`: that takes a second or two.
        artifact_store:
            Where files go at the end, see :func:`publish`.
        backend:
            Builds the model that is uploaded at the end, see :func:`publish`.
        max_model_bytes:
            The largest model that is uploaded.

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
    ) -> None:
        if not interval >= 0:
            raise ValueError(f"interval must not be negative, but got {interval}.")
        check_options(
            artifact_store=artifact_store, backend=backend, max_model_bytes=max_model_bytes
        )
        self._interval = interval
        self._figures = figures
        self._artifact_store = artifact_store
        self._backend = backend
        self._max_model_bytes = max_model_bytes
        self._lock = threading.Lock()
        self._next = time.monotonic() + min(interval, 5.0)
        self._words: tuple[str, TrialWords] | None = None

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write the note of the study, if the last one was long enough ago."""
        if time.monotonic() < self._next or not self._lock.acquire(blocking=False):
            return
        try:
            started = time.monotonic()
            carefully("The note", lambda: self._write_note(study))
            ended = time.monotonic()
            self._next = ended + max(self._interval, (ended - started) / SHARE)
        finally:
            self._lock.release()

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
            lambda: publish(
                study,
                figures=self._figures,
                artifact_store=self._artifact_store,
                backend=self._backend,
                max_model_bytes=self._max_model_bytes,
            ),
        )

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
    names = (record.ACCURACY, record.QUANTIZED)
    return [float(constraints[name]) for name in names if name in constraints]
