"""The protocol of artifact stores, for which Optuna has no public name."""

from __future__ import annotations

from typing import BinaryIO
from typing import Protocol

from optuna.artifacts.exceptions import ArtifactNotFound


class ArtifactStore(Protocol):
    """A place for files, as :class:`optuna.artifacts.FileSystemArtifactStore` is one."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact for reading."""
        ...

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep an artifact."""
        ...

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact."""
        ...


def holds(store: ArtifactStore, artifact_id: str) -> bool:
    """Whether a store has an artifact.

    Args:
        store:
            The store.
        artifact_id:
            The artifact's identifier.
    """
    try:
        store.open_reader(artifact_id).close()
    except ArtifactNotFound:
        return False
    return True
