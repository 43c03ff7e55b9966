"""Starting each trial once, although the call that starts it may have to be repeated."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
import uuid

from optuna.trial import TrialState
from optuna.trial import create_trial

from optuna_quant._optuna import trial_id as id_of
from optuna_quant.storages.database import watch_errors
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from optuna.storages import BaseStorage


STARTED_BY = "optuna_quant:started"
"""System attribute of a trial: the worker that started it, and a name for the call."""


class TrialStarts:
    """Starts trials that carry the name of the call, by which a repeated call finds its trial.

    Args:
        inner:
            The storage.
    """

    def __init__(self, inner: BaseStorage) -> None:
        self._inner = inner
        # Optuna repeats some calls by itself; that one of them failed shows only here.
        self._failures = threading.local()
        watch_errors(inner, self._note_failure)

    def _note_failure(self) -> None:
        self._failures.any = True

    def new_name(self) -> str:
        """A name for one call."""
        return f"{this_worker()}|{uuid.uuid4().hex}"

    def start(self, study_id: int, name: str) -> int:
        """Start a trial.

        Args:
            study_id:
                The study.
            name:
                The name of the call.
        """
        self._failures.any = False
        # Its clock starts now, not when the server has come back.
        template = create_trial(state=TrialState.RUNNING, system_attrs={STARTED_BY: name})
        found = self._inner.create_new_trial(study_id, template)
        if not self._failures.any:
            return found
        # Optuna has tried again by itself, and the first one may be there as well.
        started = self.started(study_id, name)
        return found if started is None else started

    def started(self, study_id: int, name: str) -> int | None:
        """The trial that a call has started; :obj:`None` if there is none. Further ones fail."""
        running = self._inner.get_all_trials(
            study_id, deepcopy=False, states=(TrialState.RUNNING,)
        )
        found = [id_of(trial) for trial in running if trial.system_attrs.get(STARTED_BY) == name]
        for other in found[1:]:
            self._inner.set_trial_state_values(other, TrialState.FAIL)
        return found[0] if found else None
