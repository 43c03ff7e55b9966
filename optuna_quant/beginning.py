"""The study that a command works on: gone on with, or begun anew by one of its processes."""

from __future__ import annotations

import contextlib
import time
from typing import Literal

import optuna
from optuna.storages import BaseStorage

from optuna_quant.others import running_now
from optuna_quant.others import where_runs
from optuna_quant.ranks import LAUNCH
from optuna_quant.ranks import Rank


_LAUNCH = "optuna_quant:launch"
_PATIENCE_SECONDS = 600.0
_PAUSE_SECONDS = 0.1


def begin(
    storage: BaseStorage,
    study_name: str,
    direction: Literal["minimize", "maximize"],
    *,
    fresh: bool,
    rank: Rank,
    patience: float = _PATIENCE_SECONDS,
) -> optuna.Study:
    """The study of that name, which may be new.

    Args:
        storage:
            Where it is.
        study_name:
            Its name.
        direction:
            Its direction.
        fresh:
            Whether it is to be begun anew. Of processes that were started together the first does
            so, and the others wait until it has.
        rank:
            Which of them this process is.
        patience:
            How long, in seconds, to wait for the first.

    Raises:
        ValueError:
            If it cannot be begun anew: other processes work on it, the launcher gives nothing by
            which the others could tell that it was, or the first of them did not do it.
    """
    if fresh and not rank.is_alone and rank.launch is None:
        raise ValueError(
            f"--fresh needs to be done by one of the {rank.size} processes and noticed by the "
            f"others, but this launcher has no number for the launch: set {LAUNCH} to a new value "
            "for each, or use a new --study-name instead."
        )
    if fresh and not rank.reports:
        return _begun_by_the_first(storage, study_name, rank, patience)
    if fresh:
        _forget(storage, study_name)
    study = optuna.create_study(
        storage=storage, study_name=study_name, direction=direction, load_if_exists=True
    )
    if fresh and not rank.is_alone:
        study.set_user_attr(_LAUNCH, rank.launch)
    return study


def _forget(storage: BaseStorage, study_name: str) -> None:
    with contextlib.suppress(KeyError):
        running = running_now(optuna.load_study(storage=storage, study_name=study_name))
        if running:
            raise ValueError(
                f"--fresh would delete the study {study_name!r} under other processes: its trial "
                f"{running[0].number} is running {where_runs(running[0])}. Stop them first, leave "
                "--fresh out to take part, or use another --study-name."
            )
        optuna.delete_study(storage=storage, study_name=study_name)


def _begun_by_the_first(
    storage: BaseStorage, study_name: str, rank: Rank, patience: float
) -> optuna.Study:
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(KeyError):
            study = optuna.load_study(storage=storage, study_name=study_name)
            if study.user_attrs.get(_LAUNCH) == rank.launch:
                return study
        if time.monotonic() >= deadline:
            raise ValueError(
                f"--fresh: rank 0 has not begun the study {study_name!r} anew within "
                f"{patience:g} s. Do all ranks have the same --storage and --study-name?"
            )
        time.sleep(_PAUSE_SECONDS)
