"""Open the study of a command: continue it, or start it over by one of its processes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import time
from typing import Literal

import optuna
from optuna.storages import BaseStorage

from optuna_quant.study.creation import without_creation_line
from optuna_quant.study.names import model_of_study
from optuna_quant.study.others import running_now
from optuna_quant.study.others import where_runs
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.launch import LAUNCH
from optuna_quant.workers.launch import Rank


_LAUNCH = "optuna_quant:launch"
_TIMEOUT_SECONDS = 600.0
_LONGEST_PAUSE_SECONDS = 0.1


def start_study(
    storage: BaseStorage,
    names: Sequence[str],
    direction: Literal["minimize", "maximize"],
    *,
    model: str,
    fresh: bool,
    rank: Rank,
    say: Callable[[str], None] | None = None,
    before_deletion: Callable[[optuna.Study], None] | None = None,
    timeout: float = _TIMEOUT_SECONDS,
) -> optuna.Study:
    """The study of that name, which may be new.

    Args:
        storage:
            Where it is.
        names:
            Its name; then others that an earlier study of the same model may have.
        direction:
            Its direction.
        model:
            What tells its model from others. A study of another model is not deleted.
        fresh:
            Whether to start it over. Of processes that were started together one does so, and the
            others wait for it.
        rank:
            Which of them this process is.
        say:
            Is told what is deleted.
        before_deletion:
            Called with each study that is deleted; it must not raise.
        timeout:
            How long, in seconds, to wait for the first.

    Raises:
        ValueError:
            If it cannot be started over: it is of another model, other processes work on it, the
            launcher gives nothing by which the others could tell that it was, or the first of
            them did not do it.
    """
    if fresh and not rank.is_alone and rank.launch is None:
        raise ValueError(
            f"With --fresh, one of the {rank.size} processes deletes the study and the others "
            f"must notice, but this launcher does not number its launches: set {LAUNCH} to a "
            "new value for each launch, or use a new --study-name instead."
        )
    study_name = names[0]
    if fresh and not rank.is_leader:
        return _started_by_the_first(storage, study_name, rank, timeout)
    if fresh:
        _forget(storage, study_name, model, say, before_deletion)
        for other in names[1:]:
            with contextlib.suppress(KeyError):
                if model_of_study(optuna.load_study(storage=storage, study_name=other)) == model:
                    _forget(storage, other, model, say, before_deletion)
    with without_creation_line():
        study = optuna.create_study(
            storage=storage, study_name=study_name, direction=direction, load_if_exists=True
        )
    if fresh and not rank.is_alone:
        study.set_user_attr(_LAUNCH, rank.launch)
    return study


def _forget(
    storage: BaseStorage,
    study_name: str,
    model: str,
    say: Callable[[str], None] | None,
    before_deletion: Callable[[optuna.Study], None] | None,
) -> None:
    """Delete a study, if there is one, that is of this model and that no process works on."""
    try:
        study = optuna.load_study(storage=storage, study_name=study_name)
    except KeyError:
        return
    held = _held(study)
    known = model_of_study(study)
    if known != model and (known is not None or study.get_trials(deepcopy=False)):
        whose = "is of another model" if known is not None else "was not started by optuna-quant"
        raise ValueError(
            f"--fresh would delete the study {study_name!r}, which {whose} ({held}). Use another "
            "--study-name or --storage; to delete it all the same, use 'optuna delete-study'."
        )
    running = running_now(study)
    if running:
        raise ValueError(
            f"--fresh would delete the study {study_name!r} under other processes: its trial "
            f"{running[0].number} is running {where_runs(running[0])}. Stop them first, leave "
            "--fresh out to join them, or use another --study-name."
        )
    if before_deletion is not None:
        before_deletion(study)
    with contextlib.suppress(KeyError):  # Another process may have done so.
        optuna.delete_study(storage=storage, study_name=study_name)
        if say is not None:
            say(f"--fresh deleted the study {study_name!r}: {held}.")


def _held(study: optuna.Study) -> str:
    """What a study holds, in a few words."""
    trials = study.get_trials(deepcopy=False)
    if not trials:
        return "no trials"
    count = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    starts = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    since = f", started {min(starts):%Y-%m-%d %H:%M}" if starts else ""
    try:
        best = f", the best metric {study.best_value:.6g}"
    except ValueError:
        best = ", none of them a result"
    except RuntimeError:  # It has several objectives.
        best = ""
    return f"{count}{since}{best}"


def _started_by_the_first(
    storage: BaseStorage, study_name: str, rank: Rank, timeout: float
) -> optuna.Study:
    backoff = Backoff(longest=_LONGEST_PAUSE_SECONDS)
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(KeyError):
            study = optuna.load_study(storage=storage, study_name=study_name)
            if study.user_attrs.get(_LAUNCH) == rank.launch:
                return study
        if time.monotonic() >= deadline:
            raise ValueError(
                f"--fresh: rank 0 did not start the study {study_name!r} over within "
                f"{timeout:g} s. Do all ranks have the same --storage and --study-name?"
            )
        backoff()
