"""Writing files so that whatever ends the process leaves the old one or the new one, whole."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import glob
import hashlib
import os
from pathlib import Path
import re
from typing import BinaryIO
import uuid


try:
    import fcntl
except ImportError:  # Windows: what a process that died has left is not told from the living.
    fcntl = None  # type: ignore[assignment]


class AsideFile:
    """A file that is being written beside the one whose place it will take.

    Args:
        path:
            Where it is written.
        file:
            The open file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.blake2b(digest_size=8)

    def write(self, content: bytes) -> None:
        """Append something."""
        self._file.write(content)
        self._hash.update(content)

    def tell(self) -> int:
        """How many bytes it has."""
        return self._file.tell()

    def digest(self) -> str:
        """A hash of what was written, 16 hexadecimal digits."""
        return self._hash.hexdigest()

    def move_to(self, path: Path) -> None:
        """Bring it onto the disk, and then into its place."""
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._path, path)
        _sync_directory(path.parent)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[AsideFile]:
    """A file beside another one, which is gone at the end unless it was moved.

    While it is open it is locked, wherever it was moved to: see :func:`remove_left_over`.

    Args:
        path:
            The file that it is for.
    """
    place, file = _new_locked(path)
    try:
        with file:
            yield AsideFile(place, file)
    finally:
        place.unlink(missing_ok=True)


def _new_locked(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        place = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        file = place.open("xb")
        _lock(file.fileno())
        if os.fstat(file.fileno()).st_nlink:
            return place, file
        file.close()  # Before it was locked, somebody has taken it for a leftover.


@contextlib.contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Exclude others who do this, where the system and the file system can."""
    if fcntl is None:
        yield
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        _lock(directory)
        yield
    finally:
        os.close(directory)


def _lock(file: int) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # Some network file systems have no locks.
            fcntl.flock(file, fcntl.LOCK_EX)


def remove_left_over(path: Path, *, keep: Path | None) -> None:
    """Remove what earlier writers of a file have left beside it, unless one is still at it.

    Args:
        path:
            The file.
        keep:
            The file with the data of what is there now; :obj:`None` if it has none.
    """
    name = re.escape(path.name)
    ours = re.compile(rf"\.{name}\.[0-9a-f]{{32}}\.tmp|{name}\.[0-9a-f]{{16}}\.data")
    found = {
        *path.parent.glob(f".{glob.escape(path.name)}.*.tmp"),
        *path.parent.glob(f"{glob.escape(path.name)}.*.data"),
    }
    for file in {file for file in found if ours.fullmatch(file.name)} - {keep}:
        # Who cannot be asked, or removed, stays: what was to be written is there all the same.
        with contextlib.suppress(OSError):
            _remove_unless_written(file)


def _remove_unless_written(path: Path) -> None:
    """Remove a file, unless a process holds it open by :func:`aside`: then it is an OSError."""
    if fcntl is None:
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _sync_directory(path: Path) -> None:
    """Bring the names in a directory onto the disk, where that can be asked for."""
    with contextlib.suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
