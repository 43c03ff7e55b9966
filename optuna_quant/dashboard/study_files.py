"""The files of a study among its artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
import json
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.artifacts import upload_artifact

from optuna_quant._optuna import study_system_attrs
from optuna_quant.storages.artifacts import holds


if TYPE_CHECKING:
    import optuna

    from optuna_quant.storages.artifacts import ArtifactStore


_PREFIX = "artifacts:"
"""The attributes of a study in which Optuna keeps what it knows of its files."""


@dataclass(frozen=True)
class StudyFiles:
    """The files of a study.

    Args:
        study:
            The study, which knows each file by an identifier.
        store:
            Where they are.
    """

    study: optuna.Study
    store: ArtifactStore

    @cached_property
    def _known(self) -> Mapping[str, str]:
        """The identifier of each file by its name. A dashboard leaves null of a deleted one."""
        attrs = study_system_attrs(self.study)
        found = [json.loads(attrs[key]) for key in attrs if key.startswith(_PREFIX)]
        return {each["filename"]: each["artifact_id"] for each in found if each is not None}

    def has(self, name: str) -> bool:
        """Whether the study knows a file of this name, and the store still has it."""
        return name in self._known and holds(self.store, self._known[name])

    def upload(self, path: Path, kind: str) -> None:
        """Put a file into the store, in the place of a lost one if the study knows its name."""
        if path.name in self._known:
            with path.open("rb") as file:
                self.store.write(self._known[path.name], file)
            return
        upload_artifact(
            artifact_store=self.store,
            file_path=str(path),
            study_or_trial=self.study,
            mimetype=kind,
        )
