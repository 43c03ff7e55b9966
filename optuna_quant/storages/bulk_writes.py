"""Write a trial at once, where Optuna's storages would write value by value.

What a storage holds afterwards is what as many calls of its methods would have left there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.storages import JournalStorage
from optuna.storages import RDBStorage

from optuna_quant._optuna import bare_storage
from optuna_quant.storages.database_writes import write_to_database
from optuna_quant.storages.journal_writes import write_to_journal
from optuna_quant.storages.retrying import RetryingStorage


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

    from optuna_quant.storages.written_values import Written


def write_trial(
    storage: BaseStorage,
    study_id: int,
    trial_id: int,
    written: Written,
    *,
    known: dict[str, BaseDistribution] | None = None,
) -> None:
    """Write what is known of a running trial: all of it or, if the storage fails, nothing.

    A database gets one transaction, a journal one entry after the other in one piece. Other
    storages are given them one by one.

    Args:
        storage:
            The storage of a study.
        study_id:
            The study's number in the storage.
        trial_id:
            The trial's.
        written:
            What to write.
        known:
            The distributions of parameters that this process knows the study to have, for which
            it need not look; those that are found and written are added. Default: none.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError:
            If the trial has ended.
        ValueError:
            If the study has another kind of distribution for a parameter. Those before it are
            written.
        KeyError:
            If there is no such trial.
    """
    if not written.params and not written.user_attrs and not written.system_attrs:
        return
    known = {} if known is None else known
    inner = storage.inner if isinstance(storage, RetryingStorage) else storage
    bare = bare_storage(inner)
    if isinstance(storage, RetryingStorage) and isinstance(bare, RDBStorage | JournalStorage):
        storage.repeat(lambda: write_trial(inner, study_id, trial_id, written, known=known))
    elif isinstance(bare, RDBStorage):
        write_to_database(bare, trial_id, written, known)
    elif isinstance(bare, JournalStorage):
        write_to_journal(bare, study_id, trial_id, written, known)
    else:
        for param in written.params:
            storage.set_trial_param(trial_id, *param)
        for key, value in written.user_attrs.items():
            storage.set_trial_user_attr(trial_id, key, value)
        for key, value in written.system_attrs.items():
            storage.set_trial_system_attr(trial_id, key, value)
