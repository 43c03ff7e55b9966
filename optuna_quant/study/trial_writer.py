"""Write to a running trial: one's own, or one that a sampler or pruner is given."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol

from optuna_quant import _optuna


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant._common.json_value import Json


class TrialWriter(Protocol):
    """Writes attributes and constraints of one trial."""

    def user_attr(self, name: str, value: Json) -> None:
        """Write what people should see."""

    def system_attr(self, name: str, value: Json) -> None:
        """Write what only this library needs."""

    def constraint(self, name: str, value: float) -> None:
        """Write a constraint."""


class RunningTrialWriter:
    """Writes to the trial of an objective; buffered writes stay buffered until the trial ends.

    Args:
        trial:
            The trial.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def user_attr(self, name: str, value: Json) -> None:
        """Write what people should see."""
        self._trial.set_user_attr(name, value)

    def system_attr(self, name: str, value: Json) -> None:
        """Write what only this library needs."""
        trial = self._trial
        trial.storage.set_trial_system_attr(_optuna.running_trial_id(trial), name, value)

    def constraint(self, name: str, value: float) -> None:
        """Write a constraint."""
        self._trial.set_constraint(name, value)


class StoredTrialWriter:
    """Writes to a running trial as a sampler or a pruner gets it, visible to all at once.

    Args:
        study:
            The study.
        trial:
            The trial.
    """

    def __init__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._study = study
        self._trial = trial

    def user_attr(self, name: str, value: Json) -> None:
        """Write what people should see."""
        _optuna.set_trial_user_attr(self._study, self._trial, name, value)

    def system_attr(self, name: str, value: Json) -> None:
        """Write what only this library needs."""
        _optuna.set_trial_system_attr(self._study, self._trial, name, value)

    def constraint(self, name: str, value: float) -> None:
        """Write a constraint, unless the trial has it already, as Optuna does."""
        if name not in self._trial.constraints:
            _optuna.set_constraint(self._study, self._trial, name, value)
