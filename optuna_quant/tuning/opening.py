"""Open the study of a search, new or existing."""

from __future__ import annotations

from dataclasses import dataclass
import time
from typing import TYPE_CHECKING
from typing import Literal

import optuna
from optuna.pruners import NopPruner

from optuna_quant.evaluation.batches import Batches
from optuna_quant.evaluation.batches import check_batches
from optuna_quant.evaluation.holdout_split import HoldoutSplit
from optuna_quant.evaluation.holdout_split import check_split
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.storages.open import open_storage
from optuna_quant.study.creation import without_creation_line
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.renewal import renew
from optuna_quant.workers.backoff import Backoff


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from optuna_quant.storages.open import Storage


MOST_RENEWALS = 3
"""How often a study may be started over by others before this process gives up."""

# Between the deletion of a study and the creation of the one in its place, in seconds.
_LONGEST_REPLACEMENT = 2.0


def is_new(storage: BaseStorage, study_name: str | None) -> bool:
    """Whether a storage has no study of a name yet."""
    if study_name is None:
        return True
    try:
        storage.get_study_id_from_name(study_name)
    except KeyError:
        return True
    return False


def was_replaced(storage: BaseStorage, study_name: str | None) -> bool:
    """Whether a storage has a study of the name of one that was deleted, or soon has one.

    The process that starts a study over deletes the old one first.
    """
    if study_name is None:
        return False
    backoff = Backoff()
    deadline = time.monotonic() + _LONGEST_REPLACEMENT
    while is_new(storage, study_name):
        if time.monotonic() > deadline:
            return False
        backoff()
    return True


@dataclass(frozen=True, kw_only=True)
class StudyOpener:
    """Opens the study of a search, and refuses one that does not fit.

    Args:
        direction:
            The direction of the study.
        sampler:
            The strategy.
        split:
            Which of the samples are the hold-out set; :obj:`None` if it is of others, or none.
        batches:
            How models with dynamic quantization are evaluated; :obj:`None` if there are none.
    """

    direction: Literal["maximize", "minimize"]
    sampler: BaseSampler
    split: HoldoutSplit | None
    batches: Batches | None

    def open(self, storage: BaseStorage, study_name: str | None) -> optuna.Study:
        for attempts_left in reversed(range(MOST_RENEWALS)):
            try:
                with without_creation_line():
                    return optuna.create_study(
                        storage=storage,
                        study_name=study_name,
                        direction=self.direction,
                        sampler=self.sampler,
                        pruner=NopPruner(),
                        load_if_exists=study_name is not None,
                    )
            except KeyError:
                # Another process has put a new one in its place since its name was looked up.
                if study_name is None or not attempts_left:
                    raise
        raise AssertionError("unreachable")

    def fitting(
        self, study: optuna.Study, objective: QuantObjective, storage: Storage
    ) -> optuna.Study:
        """The study, or the one that took its place because it had no results."""
        for _ in range(MOST_RENEWALS):
            try:
                try:
                    self._check_continued(study, objective)
                except ChangedError as changed:
                    study = renew(study, changed)
                else:
                    return study
            except KeyError:
                # Another process is putting a new one in its place at this moment.
                if storage is None:
                    raise
                study = self.open(open_storage(storage, heartbeat=False), study.study_name)
            objective.forget(study)
        self._check_continued(study, objective)
        return study

    def _check_continued(self, study: optuna.Study, objective: QuantObjective) -> None:
        """Refuse a study that was started with something else."""
        try:
            objective.check_continued(study)
        except ChangedError:
            check_split(study, self.split)  # Other samples are kept aside: that is the reason.
            raise
        check_split(study, self.split)
        check_batches(study, self.batches)
