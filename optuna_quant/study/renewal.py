"""Start a study over that holds only its baseline, once its data or options were fixed."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING
import uuid

import optuna
from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.creation import without_creation_line
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.others import has_results
from optuna_quant.study.others import running_now
from optuna_quant.study.others import where_runs
from optuna_quant.study.started_trial import StartedTrial


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import StudyDirection


_logger = get_logger(__name__)


def renew(study: optuna.Study, changed: ChangedError) -> optuna.Study:
    """Put a new study in the place of one that was started with something else and has no results.

    So the same call continues by itself once broken calibration data or labels are fixed. What
    is lost is the FP32 model's metric and failed trials; what was enqueued, and attributes that
    are not ours, are kept. Several processes may do this at once: one of them does it.

    Args:
        study:
            The study.
        changed:
            What has changed.

    Returns:
        The study that bears the name now, with the same sampler and pruner.

    Raises:
        ChangedError:
            ``changed``, if there are results, or another process works on the study.
    """
    name, directions, old = study.study_name, study.directions, dict(study.user_attrs)
    if has_results(study):
        raise changed
    running = running_now(study)
    if running:
        raise type(changed)(
            f"{changed} (Its trial {running[0].number} is running {where_runs(running[0])}; it "
            "has no results yet, and can be started over once no process works on it.)"
        )

    def replace() -> bytes:
        # Another process may have done so, and with SQLite the new one may have the same number.
        if dict(study.user_attrs) == old and not has_results(study) and not running_now(study):
            _replace(study)
            _logger.warning(
                f"{_first_sentence(changed)} It held no result except the FP32 model's metric, "
                "so it is started over."
            )
        return b"done"

    # A study that is gone takes its attributes with it.
    with contextlib.suppress(KeyError):
        ComputeOnce(study, f"renewed:{hashlib.sha256(repr(old).encode()).hexdigest()[:16]}").get(
            replace
        )
    return _open(study, name, directions)


def _replace(study: optuna.Study) -> None:
    name, directions = study.study_name, study.directions
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    enqueued = [StartedTrial(trial).fixed_params for trial in waiting]
    others = {k: v for k, v in study.user_attrs.items() if not k.startswith("optuna_quant:")}
    given = get_baseline(study)
    storage, study_id = _optuna.study_identity(study)
    # SQLite gives the highest number again once it is free: to others, who still refer to the old
    # study by its number, the new one would look like it.
    holder = storage.create_new_study(directions, f"{name} restarts {uuid.uuid4().hex}")
    storage.delete_study(study_id)
    new = _open(study, name, directions)
    storage.delete_study(holder)
    for key, value in others.items():
        new.set_user_attr(key, value)
    for params in enqueued:
        new.enqueue_trial(params)
    if given is not None and given.trial is None:  # It was measured elsewhere.
        set_baseline(new, given)


def _open(study: optuna.Study, name: str, directions: Sequence[StudyDirection]) -> optuna.Study:
    storage, _ = _optuna.study_identity(study)
    with without_creation_line():
        return optuna.create_study(
            # Without what was cached of the old one: SQLite gives the numbers of what was deleted
            # to new studies and trials.
            storage=_optuna.bare_storage(storage),
            study_name=name,
            directions=directions,
            sampler=study.sampler,
            pruner=study.pruner,
            load_if_exists=True,
        )


def _first_sentence(error: Exception) -> str:
    """What has changed, without the cure."""
    return re.split(r"(?<=[.)])\s(?=[A-Z])", str(error), maxsplit=1)[0]
