"""The protocol of artifact stores, for which Optuna has no public name."""

from __future__ import annotations

from typing import BinaryIO
from typing import Protocol


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
