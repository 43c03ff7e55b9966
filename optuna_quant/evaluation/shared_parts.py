"""Keep parts of candidates for all workers of a study: in it, or in an artifact store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

from optuna.artifacts import download_artifact
from optuna.artifacts import upload_artifact

from optuna_quant import _optuna
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.study.blobs import stored_bytes
from optuna_quant.study.compute_once import ComputeOnce


if TYPE_CHECKING:
    import optuna

    from optuna_quant.storages.artifacts import ArtifactStore


LARGEST_PART = 64_000
"""How many bytes a part has at most that is kept in the study itself."""
MOST_IN_STUDY = 2_000_000
"""How many bytes all parts in a study take, about. Optuna reads them with every study."""

_PREFIX = "part:"
# What a study holds under the name of a part: itself, the artifact that it is, or that it is
# nowhere, because there was no room.
_HERE, _ARTIFACT, _NOWHERE = b"here:", b"artifact:", b"nowhere:"


class StudyParts:
    """Computes each part once for all workers of a study; a backend's ``KeepsParts``.

    Args:
        study:
            The study.
        artifact_store:
            Where parts are kept that are too large for the study; None to compute those in each
            worker.
    """

    def __init__(self, study: optuna.Study, artifact_store: ArtifactStore | None = None) -> None:
        self._study = study
        self._store = artifact_store

    def get(self, name: str, compute: Callable[[], bytes], *, nbytes: int) -> bytes:
        """See :class:`~optuna_quant.backends.base.KeepsParts`."""
        if nbytes > LARGEST_PART and self._store is None:
            return compute()
        computed: list[bytes] = []

        def keep() -> bytes:
            computed.append(compute())
            return self._kept(computed[0])

        value = ComputeOnce(self._study, _PREFIX + name).get(keep)
        if computed:
            return computed[0]
        found = self.read(value)
        return compute() if found is None else found

    def read(self, value: bytes) -> bytes | None:
        """The part for which a study holds a value; None if it is nowhere, or cannot be read."""
        if value.startswith(_HERE):
            return value.removeprefix(_HERE)
        if value.startswith(_ARTIFACT):
            return self._downloaded(value.removeprefix(_ARTIFACT).decode())
        return None

    def _kept(self, data: bytes) -> bytes:
        """What the study holds for a part."""
        if len(data) <= LARGEST_PART:
            attrs = _optuna.study_system_attrs(self._study)
            if stored_bytes(attrs, _PREFIX) + len(data) <= MOST_IN_STUDY:
                return _HERE + data
        if self._store is None:
            return _NOWHERE
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "part")
            path.write_bytes(data)
            artifact = upload_artifact(
                artifact_store=self._store, file_path=str(path), study_or_trial=self._study
            )
        return _ARTIFACT + artifact.encode()

    def _downloaded(self, artifact: str) -> bytes | None:
        if self._store is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "part")
            try:
                download_artifact(
                    artifact_store=self._store, file_path=str(path), artifact_id=artifact
                )
                return path.read_bytes()
            except Exception as error:  # Each kind of store fails in its own way.
                warn_user(
                    f"A part of a model, artifact {artifact}, cannot be read from the artifact "
                    f"store ({error}); computing it again."
                )
        return None


class RecordedParts:
    """Parts that a study holds already, without writing to it; a backend's ``KeepsParts``.

    Args:
        study:
            The study.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._parts = StudyParts(study)

    def get(self, name: str, compute: Callable[[], bytes], *, nbytes: int) -> bytes:
        """The part, which is computed here if the study does not hold it."""
        value = ComputeOnce(self._study, _PREFIX + name).read()
        found = None if value is None else self._parts.read(value)
        return compute() if found is None else found
