"""The private names of Optuna that cannot be avoided, all in one place.

Optuna has no public way for a sampler to write to a trial or to read the trials of a study behind
a pruner's filter (https://github.com/optuna/optuna/issues/2327).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def study_identity(study: optuna.Study) -> tuple[object, int]:
    """The storage object of a study, and the study's number in it."""
    return study._storage, study._study_id


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study, not copied: they must not be changed."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def study_system_attrs(study: optuna.Study) -> dict[str, Any]:
    """The system attributes of a study."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_system_attr(study: optuna.Study, key: str, value: Any) -> None:
    """Write a system attribute of a study."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def set_trial_system_attr(study: optuna.Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Write a system attribute of a running trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def set_constraint(study: optuna.Study, trial: FrozenTrial, key: str, value: float) -> None:
    """What ``Trial.set_constraint`` does, for a frozen trial that still runs."""
    set_trial_system_attr(study, trial, f"constraints:{key}", value)


def fail_trial(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Mark a running trial as failed; :obj:`False` if it is not running any more."""
    try:
        return study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False


def trial_id(trial: FrozenTrial) -> int:
    """The number of a trial in its storage, over all studies."""
    return trial._trial_id
