"""A buffer for the parameters and attributes of a trial, which writes them all at once."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import TYPE_CHECKING
from typing import Any
from typing import cast
from weakref import WeakKeyDictionary

import optuna
from optuna.logging import get_logger

from optuna_quant._optuna import CONSTRAINT_PREFIX
from optuna_quant._optuna import running_trial_id
from optuna_quant._optuna import study_identity
from optuna_quant.storages.bulk_writes import write_trial
from optuna_quant.storages.written_values import Parameter
from optuna_quant.storages.written_values import Written


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage


_logger = get_logger(__name__)

# The distributions that this process knows each study to have. By the study, not by its number in
# the storage: SQLite gives that of a deleted study to another one.
_known: WeakKeyDictionary[optuna.Study, dict[str, BaseDistribution]] = WeakKeyDictionary()


@contextlib.contextmanager
def buffered_writes(trial: optuna.trial.BaseTrial, *, attributes: bool = False) -> Iterator[None]:
    """Write what is suggested inside at the end of the block, in one transaction.

    Optuna writes each parameter when it is suggested, with a commit of its own. In this block the
    trial itself knows its parameters as ever; others see them when the block ends, however it
    ends. That also spares them reading the parameters of a trial each time they look at it, which
    Optuna does as long as a trial runs.

    A block inside another one does nothing. Nor does one around a trial that has no storage, as a
    :class:`~optuna.trial.FixedTrial`.

    Args:
        trial:
            The trial.
        attributes:
            Whether the trial's attributes and constraints that are set inside wait as well; see
            :func:`unbuffered`.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError:
            At the end of the block, if another worker has ended the trial.
        ValueError:
            At the end of the block, if the study has another kind of distribution for a
            parameter. Those before it are written.

        If the block ends by an exception, that one is raised whatever becomes of the parameters.
    """
    if not isinstance(trial, optuna.Trial) or isinstance(trial.storage, _Buffer):
        yield
        return
    storage = trial.storage
    holder = _Buffer(storage, attributes=attributes)
    trial.storage = cast("BaseStorage", holder)
    try:
        yield
    except BaseException as error:
        trial.storage = storage
        try:
            holder.write(trial)
        except Exception as second:
            note = f"The parameters of trial {trial.number} were not written: {second}"
            error.add_note(note)
            _logger.warning(note)
        raise
    trial.storage = storage
    holder.write(trial)


@contextlib.contextmanager
def unbuffered(trial: optuna.Trial) -> Iterator[None]:
    """Attributes that are set in this block do not wait: others see them now."""
    holder = trial.storage
    if not isinstance(holder, _Buffer):
        yield
        return
    holder.holds_attributes, before = False, holder.holds_attributes
    try:
        yield
    finally:
        holder.holds_attributes = before


class _Buffer:
    """Wraps a storage and buffers the writes of a trial."""

    def __init__(self, storage: BaseStorage, *, attributes: bool) -> None:
        self._storage = storage
        self._params: list[Parameter] | None = []
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}
        self._stored: dict[str, Any] | None = None
        self.holds_attributes = attributes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_storage":  # Copying asks before there is one.
            raise AttributeError(name)
        return getattr(self._storage, name)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        if self._params is None:
            self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        else:
            self._params.append(Parameter(param_name, param_value_internal, distribution))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self.holds_attributes:
            self._user_attrs[key] = value
        else:
            self._user_attrs.pop(key, None)
            self._storage.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self.holds_attributes:
            self._system_attrs[key] = value
        else:
            self._system_attrs.pop(key, None)
            self._storage.set_trial_system_attr(trial_id, key, value)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """What the trial's sampler has noted (GridSampler does), read once, and what is kept here.

        Optuna looks here before it sets a constraint, of which it sets none twice; those that a
        repeated trial has inherited are not its own.
        """
        if not self.holds_attributes:
            return self._storage.get_trial_system_attrs(trial_id)
        if self._stored is None:
            stored = self._storage.get_trial_system_attrs(trial_id)
            self._stored = {
                name: value
                for name, value in stored.items()
                if not name.startswith(CONSTRAINT_PREFIX)
            }
        return {**self._stored, **self._system_attrs}

    def write(self, trial: optuna.Trial) -> None:
        """Write what was kept; from now on everything goes to the storage at once."""
        params, self._params = self._params, None
        self.holds_attributes = False
        _, study_id = study_identity(trial.study)
        write_trial(
            self._storage,
            study_id,
            running_trial_id(trial),
            Written(params or [], self._user_attrs, self._system_attrs),
            known=_known.setdefault(trial.study, {}),
        )
