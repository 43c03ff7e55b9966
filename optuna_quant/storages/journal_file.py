"""Journal files whose lock ends with its process, and whose damage is named and repaired."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import errno
import importlib
import json
import math
import os
from pathlib import Path
import platform
import stat
import time
from typing import Any
from typing import TypeAlias
import zlib

from optuna.logging import get_logger
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalFileOpenLock
from optuna.storages.journal import JournalFileSymlinkLock

from optuna_quant.storages.errors import StorageError
from optuna_quant.workers.backoff import Backoff


Storage: TypeAlias = str | os.PathLike[str] | BaseStorage | None

_logger = get_logger(__name__)

_BLOCK_BYTES = 1 << 16
_JOURNAL_BEGINS = b'{"op_code":'
_SQLITE_BEGINS = b"SQLite format 3\0"
_SAY_SECONDS = 5.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def open_journal(path: Path) -> BaseStorage:
    check_directory(path)
    if path.is_dir():
        raise ValueError("it is a folder; give a file in it.")
    if path.exists() and path.stat().st_size:
        _check_start(path)
    lock = _mended(path)
    try:
        return JournalStorage(JournalFile(path, lock))
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"the entries of the journal {str(path)!r} contradict each other: it was edited, or "
            "comes from another version of Optuna. Choose another file."
        ) from error


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(max(len(_JOURNAL_BEGINS), len(_SQLITE_BEGINS)))
    if start.startswith(_SQLITE_BEGINS):
        raise ValueError(
            f"it is an SQLite database, and a path names a journal. Write sqlite:///{path}"
        )
    if not start.startswith(_JOURNAL_BEGINS):
        raise ValueError(
            "this file exists and is not a journal of Optuna. Choose another file, or delete it."
        )


def _mended(path: Path) -> JournalFileSymlinkLock | JournalFileOpenLock:
    """The lock of a journal, used once, to bring the end of the file in order."""
    lock: JournalFileSymlinkLock | JournalFileOpenLock
    try:
        importlib.import_module("fcntl")
    except ImportError:
        # The lock that Optuna names for Windows.
        lock = JournalFileOpenLock(str(path))
    else:
        lock = JournalFileFlock(path)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
    try:
        path.touch()
        _drop_broken_end(path)
        _check_last_line(path)
    finally:
        lock.release()
    return lock


class JournalFile(JournalFileBackend):
    """A journal file that says where it is damaged."""

    def __init__(
        self, path: str | os.PathLike[str], lock: JournalFileSymlinkLock | JournalFileOpenLock
    ) -> None:
        super().__init__(os.fspath(path), lock)
        self._path = Path(path)
        self._guard = lock
        self._inode = self._path.stat().st_ino

    def is_there(self) -> bool:
        """Whether the file is still there, and the one that was opened."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _check_there(self) -> None:
        # The lock, which opens it again, would make an empty one.
        if not self.is_there():
            raise FileNotFoundError(
                f"The journal {str(self._path)!r} is no longer there: it was removed or replaced "
                "while this process worked on it."
            )

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries.

        Raises:
            FileNotFoundError:
                If the file was removed or replaced.
            OSError:
                If they cannot be written, as where the disk is full. Entries that were written to
                their end stay: other processes may have read them, and each stands for itself.
        """
        self._check_there()
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            self._guard.acquire()
            try:
                self._append(text)
            finally:
                self._guard.release()
        except OSError as error:
            raise _not_written(self._path, error) from error

    def _append(self, text: bytes) -> None:
        try:
            with self._path.open("ab", buffering=0) as file:
                rest = memoryview(text)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
        except OSError:
            _drop_broken_end(self._path)
            raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        self._check_there()
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                _check_entry(log)
                number += 1
                yield log
        except ValueError as error:
            raise ValueError(_damaged(self._path, number + 1)) from error


class JournalFileFlock(JournalFileSymlinkLock):
    """The lock of a journal file that the kernel releases when its holder dies.

    It holds an exclusive ``flock`` on the journal itself and, inside it, the same link beside the
    file that Optuna's own locks make, so that it also excludes processes that use those. A link
    that a dead process left behind is removed at once if this class made it: the holder of the
    ``flock`` knows that its maker is gone. One of another program is removed when neither
    it nor the journal has changed for the grace period, as Optuna does.

    Each :meth:`acquire` opens the file itself, since a ``flock`` belongs to an open file: threads
    of one process exclude each other as processes do. An object can be shared by threads.

    On a network file system ``flock`` may not reach beyond the machine. There the link alone
    excludes other machines, as with Optuna's lock, and one that a process on another machine left
    behind costs the grace period.

    Args:
        path: The journal. It is made if it is not there.
        grace_period: Seconds after which a link that another program, or machine, left is removed.

    Raises:
        OSError: By :meth:`acquire`, where the file system knows no ``flock`` or no links.
    """

    def __init__(self, path: str | os.PathLike[str], grace_period: float = 30) -> None:
        self._path = Path(path).absolute()
        super().__init__(str(self._path), math.ceil(grace_period))
        self._link = f"{self._path}.lock"
        self._grace_seconds = grace_period
        self._mark = _machine_mark() + self._path.name
        self._held: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock, however long another living process holds it."""
        descriptor = self._wait_for_file()
        try:
            self._wait_for_link()
            # The one before may have died in the middle of a write.
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                _drop_broken_end(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self._held = descriptor
        return True

    def release(self) -> None:
        """Release the lock."""
        import fcntl

        descriptor, self._held = self._held, None
        if descriptor is None:
            raise RuntimeError(f"The lock of {str(self._path)!r} is not held.")
        try:
            if self._target() == self._mark:
                os.unlink(self._link)
            else:
                _logger.warning(f"Another process took {self._link!r} while it was held.")
        finally:
            # Closing alone would leave it to a child that was forked meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _wait_for_file(self) -> int:
        import fcntl

        pauses = _pauses(f"the lock of {str(self._path)!r}, which another process holds")
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                while True:
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        next(pauses)
                with contextlib.suppress(FileNotFoundError):
                    # Otherwise the file was replaced meanwhile.
                    if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _wait_for_link(self) -> None:
        pauses = _pauses(
            f"{self._link!r}, which another process made; it is removed if nothing changes "
            f"for {self._grace_seconds} seconds"
        )
        seen: tuple[int, int, int] | None = None
        since = time.monotonic()
        while True:
            with contextlib.suppress(FileExistsError):
                os.symlink(self._mark, self._link)
                return
            try:
                link = os.lstat(self._link)
                stale = self._target() == self._mark
                now = (link.st_ino, link.st_mtime_ns, self._path.stat().st_mtime_ns)
            except FileNotFoundError:
                continue
            if now != seen:
                seen, since = now, time.monotonic()
            if stale or time.monotonic() - since > self._grace_seconds:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._link)
            else:
                next(pauses)

    def _target(self) -> str | None:
        """Where the link leads; :obj:`None` if it is gone, or a file as Optuna's open lock's."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISLNK(os.lstat(self._link).st_mode):
                return os.readlink(self._link)
        return None


def _machine_mark() -> str:
    """A path that means "here", written differently on each machine.

    A link must lead to the journal, whose time of change Optuna's locks watch, so that this is the
    only place for saying which machine made it.
    """
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = platform.node()
    return "".join("./" if bit == "1" else ".//" for bit in f"{zlib.crc32(name.encode()):032b}")


def _pauses(waited_for: str) -> Iterator[None]:
    """Sleep for longer and longer, up to 10 ms, and say now and then what is waited for."""
    backoff = Backoff(first=0.0005, longest=0.01, factor=2.0)
    said = time.monotonic()
    while True:
        backoff()
        if time.monotonic() - said > _SAY_SECONDS:
            said = time.monotonic()
            _logger.warning(f"Waiting for {waited_for}.")
        yield


def _line_start(path: Path, end: int) -> int:
    """Where the line starts that goes on up to ``end``."""
    with path.open("rb") as file:
        place = end
        while place > 0:
            start = max(0, place - _BLOCK_BYTES)
            file.seek(start)
            newline = file.read(place - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            place = start
    return 0


def _drop_broken_end(path: Path) -> None:
    """Cut off a last line that was not written to its end, because the disk was full or so.

    Optuna would append to it, and could not read the result.
    """
    end = path.stat().st_size
    place = _line_start(path, end)
    if place < end:
        os.truncate(path, place)


def _check_last_line(path: Path) -> None:
    """Optuna passes over a last line that it cannot read, until another one follows."""
    end = path.stat().st_size
    if end == 0:
        return
    with path.open("rb") as file:
        file.seek(_line_start(path, end - 1))
        line = file.read(end - file.tell())
    try:
        _check_entry(json.loads(line))
    except ValueError as error:
        with path.open("rb") as file:
            raise ValueError(_damaged(path, sum(1 for _ in file))) from error


def _check_entry(log: object) -> None:
    if not isinstance(log, dict) or "op_code" not in log:
        raise ValueError("no entry of a journal")


def _damaged(path: Path, number: int) -> str:
    what = (
        f"line {number} of the journal {str(path)!r} is damaged: another program wrote into the "
        "file, or the disk failed."
    )
    if number == 1:
        return f"{what} Choose another file."
    return (
        f"{what} The lines before it are intact: keep them with 'head -n {number - 1} {path} > "
        "NEW', and continue with NEW, or choose another file."
    )


def _not_written(path: Path, error: OSError) -> OSError:
    message = f"The journal {str(path)!r} cannot be written: {error.strerror or error}."
    if error.errno in _NO_SPACE:
        message += (
            " Make room on its disk, then start again: what was recorded before is intact, and "
            "the study continues from there."
        )
    # Optuna hides the error of a call that ends a trial behind an assertion.
    _logger.error(message)
    return StorageError(message, errno=error.errno)


def check_directory(path: Path) -> None:
    if not path.parent.is_dir():
        raise ValueError(f"there is no directory {str(path.parent)!r}.")
