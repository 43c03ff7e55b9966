"""A database of Optuna's: transactions, and the connections to it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import TYPE_CHECKING
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from optuna_quant._optuna import bare_storage
from optuna_quant._optuna import database_models


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage
    from sqlalchemy.orm import Session


def is_database(storage: BaseStorage) -> bool:
    """Whether a storage, or what is behind its cache, is a database."""
    return isinstance(bare_storage(storage), RDBStorage)


@contextlib.contextmanager
def database_session(storage: RDBStorage) -> Iterator[Session]:
    """A transaction; an error of the database becomes a ``StorageInternalError``, as in Optuna.

    Raises:
        sqlalchemy.exc.IntegrityError:
            If another process has written the same.
        optuna.exceptions.StorageInternalError:
            If anything else goes wrong in the database.
    """
    from sqlalchemy.exc import IntegrityError
    from sqlalchemy.exc import SQLAlchemyError

    session = storage.scoped_session()
    try:
        yield session
        session.commit()
    except Exception as error:
        session.rollback()
        if isinstance(error, SQLAlchemyError) and not isinstance(error, IntegrityError):
            raise StorageInternalError(f"A transaction has failed: {error}") from error
        raise
    finally:
        session.close()


def may_have_waiting_trials(storage: BaseStorage, study_id: int) -> bool:
    """Whether a study has trials in its queue, as far as that can be told at little cost."""
    storage = bare_storage(storage)
    if not isinstance(storage, RDBStorage):
        return True
    from sqlalchemy import select

    trials = database_models().TrialModel
    waiting = select(trials.trial_id).where(
        trials.study_id == study_id, trials.state == TrialState.WAITING
    )
    with database_session(storage) as session:
        return session.scalar(waiting.limit(1)) is not None


def release_connection(storage: BaseStorage) -> None:
    """Give up this thread's connection, which may be in the middle of something."""
    storage = bare_storage(storage)
    if isinstance(storage, RDBStorage):
        storage.remove_session()


def close_connections(storage: BaseStorage) -> None:
    """Close all connections to a database that are not in use right now."""
    storage = bare_storage(storage)
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def watch_errors(storage: BaseStorage, note: Callable[[], None]) -> None:
    """Call ``note``, in the thread at work, whenever the connection to a database breaks."""
    storage = bare_storage(storage)
    if not isinstance(storage, RDBStorage):
        return
    from sqlalchemy import event

    def handle(context: Any) -> None:
        if context.is_disconnect:
            note()

    event.listen(storage.engine, "handle_error", handle)
