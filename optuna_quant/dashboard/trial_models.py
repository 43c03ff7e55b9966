"""The models of trials among the artifacts of a study."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
import json
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING
import uuid

from optuna.artifacts.exceptions import ArtifactNotFound

from optuna_quant import _optuna
from optuna_quant.storages.artifacts import holds
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Model
    from optuna_quant.storages.artifacts import ArtifactStore


_PREFIX = "dashboard:artifacts:"
"""The attributes of a study in which optuna-dashboard looks for files of its trials.

Those that Optuna itself keeps in a trial can be neither added nor removed once it has ended.
"""

_DELETED = "null"
_OURS = uuid.UUID("5a0c1f1e-2c1c-4a53-9f0b-6a3a0f1f8f58")
_MIME_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class TrialModels:
    """The models of a study's trials, each on the page of its trial.

    The identifier of a model follows from the record, so that several workers that upload the
    same one write the same file and the same entry.

    Args:
        study:
            The study, which knows each file.
        store:
            Where they are.
    """

    study: optuna.Study
    store: ArtifactStore

    def of(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Those of some trials of the study that have a model, as far as the study knows."""
        return _with_model(self.study, trials)

    def has(self, trial: FrozenTrial) -> bool:
        """Whether the study knows the model of a trial, and the store still has it."""
        return bool(self.of([trial])) and holds(self.store, _artifact_id(self.study, trial))

    def put(self, trial: FrozenTrial, model: Model, *, ending: str) -> None:
        """Keep the model of a trial.

        Args:
            trial:
                The trial; it has ended.
            model:
                Its model.
            ending:
                How the names of such files end.

        Raises:
            ValueError:
                If the model is saved as several files.
        """
        artifact = _artifact_id(self.study, trial)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"trial_{trial.number}{ending}"
            model.save(path)
            if any(each != path and each.name[0] != "." for each in Path(folder).iterdir()):
                raise ValueError("it is too large for one file; `optuna-quant export` writes it")
            with path.open("rb") as file:
                self.store.write(artifact, file)
        meta = {
            "artifact_id": artifact,
            "filename": path.name,
            "mimetype": _MIME_TYPE,
            "encoding": None,
        }
        # Last, so that the dashboard lists nothing that is not there.
        _optuna.set_study_system_attr(self.study, _key(self.study, trial), json.dumps(meta))

    def remove(self, trial: FrozenTrial) -> None:
        """Remove the model of a trial."""
        # First, for the same reason.
        _optuna.set_study_system_attr(self.study, _key(self.study, trial), _DELETED)
        with contextlib.suppress(ArtifactNotFound):
            self.store.remove(_artifact_id(self.study, trial))


def numbers_with_model(study: optuna.Study) -> list[int]:
    """The trials whose model is among the artifacts of a study.

    Args:
        study:
            The study, which is only read.
    """
    found = _with_model(study, study.get_trials(deepcopy=False))
    return [trial.number for trial in found]


def _with_model(study: optuna.Study, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    known: Mapping[str, str] = {
        key: value
        for key, value in _optuna.study_system_attrs(study).items()
        if key.startswith(_PREFIX) and value != _DELETED
    }
    if not known:
        return []
    return [t for t in trials if t.state.is_finished() and _key(study, t) in known]


def _key(study: optuna.Study, trial: FrozenTrial) -> str:
    return f"{_PREFIX}{_optuna.trial_id(trial)}:{_artifact_id(study, trial)}"


def _artifact_id(study: optuna.Study, trial: FrozenTrial) -> str:
    # The time tells studies of one name in different storages apart.
    fingerprint = TrialView(trial).fingerprint
    name = f"{study.study_name}:{trial.number}:{trial.datetime_start}:{fingerprint}"
    return str(uuid.uuid5(_OURS, name))
