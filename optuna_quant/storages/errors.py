"""Errors of a storage, in its server's own words, with what to do about them."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import re
import sqlite3
import sys

from optuna.exceptions import StorageInternalError

from optuna_quant.storages.reconnection import StorageLostError


class StorageError(OSError):
    """A storage refused a call: it is full, for example, or a right is missing."""

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class NotOpenedError(ValueError):
    """A storage cannot be opened: the address is wrong, for example, or no server answers."""


_WHAT_TO_DO = (
    (
        re.compile(r"too many (clients|connections)|connection slots", re.IGNORECASE),
        "Start fewer workers, let it accept more connections (max_connections), or let one "
        "process hold them for all: optuna-quant serve.",
    ),
    (
        re.compile(r"full|no space|could not extend file|OOM command|quota", re.IGNORECASE),
        "Make room on its disk, then start again.",
    ),
    (
        re.compile("disk I/O error", re.IGNORECASE),
        "Check whether its disk is full or has failed, then start again.",
    ),
    (
        re.compile(
            r"permission denied|command denied|access denied|read-?only|insufficient privilege"
            r"|NOPERM|no permissions",
            re.IGNORECASE,
        ),
        "Give its user the right to read and write, then start again.",
    ),
)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Raise what a storage has said, where Optuna raises something else because of it.

    When a call that ends a trial fails, ``study.optimize`` stumbles over an assertion, and what
    was wrong is only its context.

    Raises:
        StorageError:
            For what a database or Redis has refused; it says what to do.
        StorageLostError:
            If the server was lost for too long.
    """
    try:
        yield
    except Exception as error:
        found = _explained(error)
        if found is None or found is error:
            raise
        raise found from error


def _explained(
    error: BaseException | None,
) -> StorageError | StorageLostError | None:
    """The error of the storage that an error is, or comes from; None if there is none."""
    said: str | None = None
    is_open = True
    while error is not None:
        if isinstance(error, StorageError | StorageLostError):
            return error
        is_open = is_open and not isinstance(error, NotOpenedError)
        said = _said_by_storage(error) or said
        error = error.__cause__ or error.__context__
    if said is None:
        return None
    lines = [line.strip() for line in said.strip().splitlines()] or ["no reason is known"]
    hints = [hint for pattern, hint in _WHAT_TO_DO if pattern.search(lines[0])]
    if not (is_open or hints):  # It says itself what is wrong, and nothing was recorded.
        return None
    hint = hints[0] if hints else "Fix that, then start again."
    return StorageError(
        f"The storage refused a call: {lines[0].rstrip('.')}. {hint} What was recorded before "
        "is safe, and the study continues from there."
    )


def _said_by_storage(error: BaseException) -> str | None:
    database, redis = (sys.modules.get(name) for name in ("sqlalchemy.exc", "redis.exceptions"))
    if database and isinstance(error, database.DBAPIError):
        return str(error.orig)
    kinds: tuple[type[BaseException], ...] = (StorageInternalError, sqlite3.Error)
    if database:
        kinds += (database.SQLAlchemyError,)
    if redis:
        kinds += (redis.RedisError,)
    return str(error) if isinstance(error, kinds) else None
