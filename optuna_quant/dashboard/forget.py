"""Remove the files of a study that is about to be deleted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound

from optuna_quant.dashboard.artifacts import TABLE
from optuna_quant.dashboard.careful import carefully
from optuna_quant.dashboard.trial_models import TrialModels


if TYPE_CHECKING:
    import optuna

    from optuna_quant.storages.artifacts import ArtifactStore


def remove_files(study: optuna.Study, store: ArtifactStore) -> None:
    """Remove from a store what was published of a study: models and tables.

    Args:
        study:
            The study.
        store:
            Where the files are.
    """
    carefully("That files were removed", lambda: _remove(study, store))


def _remove(study: optuna.Study, store: ArtifactStore) -> None:
    models = TrialModels(study, store)
    for trial in models.of(study.get_trials(deepcopy=False)):
        models.remove(trial)
    for meta in get_all_artifact_meta(study):
        if TABLE.fullmatch(meta.filename):
            with contextlib.suppress(ArtifactNotFound):
                store.remove(meta.artifact_id)
