"""A storage that waits for its server to come back."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar
import uuid

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_quant._optuna import BaseHeartbeat
from optuna_quant._optuna import HeartbeatStorage
from optuna_quant._optuna import cached_storage
from optuna_quant._optuna import stale_trial_ids
from optuna_quant.storages.database import may_have_waiting_trials
from optuna_quant.storages.database import release_connection
from optuna_quant.storages.reconnection import Reconnection
from optuna_quant.storages.reconnection import StorageLostError
from optuna_quant.storages.trial_starts import TrialStarts


if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection

    from optuna_quant._common.json_value import Json


T = TypeVar("T")


class RetryingStorage(HeartbeatStorage):
    """A storage whose calls wait while its server cannot be reached, and then continue.

    A call that failed because the connection was lost is repeated once the server answers again.
    The server may have done what was asked before the connection broke; a repeated call then finds
    that it is done: no trial is started twice, and a result that was recorded is no error. To
    recognize them, a trial that :meth:`create_new_trial` makes without a template has the system
    attribute ``optuna_quant:started``. A trial made by a template is taken as it is; one that was
    enqueued can be there twice after a loss at that moment.

    Other errors are raised as ever, and so is a lost connection that comes again and again with
    the same call while the server answers: too large a packet, for example.

    Connections to a database that were not used for a second are closed, so that workers whose
    evaluations take long do not hold those that others wait for.

    An outage is told by one warning, its end by one line of information. Where the storage has a
    heartbeat, no trial is stale until all workers had the time to send one after it.

    Args:
        inner:
            The storage. A database is given the cache that a study would give it.
        timeout:
            For how many seconds an outage may last.

    Raises:
        ValueError:
            If ``timeout`` is negative.
    """

    def __init__(self, inner: BaseStorage, *, timeout: float = 300.0) -> None:
        if timeout < 0:
            raise ValueError(f"timeout must not be negative, but got {timeout}.")
        self._inner = cached_storage(inner)
        self._timeout = timeout
        self._connect()

    def _connect(self) -> None:
        self._reconnection = Reconnection(self._inner, self._timeout)
        self._study_ids: set[int] = set()
        self._starts = TrialStarts(self._inner)

    def __getstate__(self) -> dict[str, Any]:
        return {"_inner": self._inner, "_timeout": self._timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    @property
    def inner(self) -> BaseStorage:
        """The storage that is waited for."""
        return self._inner

    @property
    def timeout(self) -> float:
        """For how many seconds an outage may last."""
        return self._timeout

    def repeat(self, action: Callable[[], T], done: Callable[[], T | None] | None = None) -> T:
        """Do something with :attr:`inner`, again if the connection is lost meanwhile.

        Args:
            action:
                What to do.
            done:
                Looks, before ``action`` is repeated, whether it was done all the same, and gives
                its result; :obj:`None` if it was not. Without it, doing it twice is harmless.

        Raises:
            StorageLostError:
                If the server does not come back in time.
            Exception:
                Whatever ``action`` raises.
        """
        return self._reconnection.repeat(action, done)

    # What must not be done twice.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        # As Optuna names a study that is given no name.
        name = f"no-name-{uuid.uuid4()}" if study_name is None else study_name

        def done() -> int | None:
            # Another process may have made it: as good as ours as long as it is empty.
            try:
                found: int = self._inner.get_study_id_from_name(name)
            except KeyError:
                return None
            if self._inner.get_study_directions(found) != list(directions):
                return None
            return None if self._inner.get_n_trials(found) else found

        return self.repeat(lambda: self._inner.create_new_study(directions, name), done)

    def delete_study(self, study_id: int) -> None:
        self._study_ids.discard(study_id)
        repeated = False

        def delete() -> None:
            nonlocal repeated
            try:
                self._inner.delete_study(study_id)
            except KeyError:
                if not repeated:
                    raise
            finally:
                repeated = True

        self.repeat(delete)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._study_ids.add(study_id)
        if template_trial is not None:
            return self.repeat(lambda: self._inner.create_new_trial(study_id, template_trial))
        name = self._starts.new_name()
        return self.repeat(
            lambda: self._starts.start(study_id, name),
            lambda: self._starts.started(study_id, name),
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        asked_at = datetime.now()

        def done() -> bool | None:
            trial = self._inner.get_trial(trial_id)
            if trial.state != state:
                return None
            if state == TrialState.RUNNING:
                # Its worker wrote when it took it. Some databases know seconds only.
                taken_at = trial.datetime_start
                early = asked_at - timedelta(seconds=1)
                return taken_at is not None and early <= taken_at <= datetime.now()
            same = values is None or _same(trial.values, values)
            return True if state.is_finished() and same else None

        return self.repeat(
            lambda: self._inner.set_trial_state_values(trial_id, state, values), done
        )

    # What can be done twice.

    def set_study_user_attr(self, study_id: int, key: str, value: Json) -> None:
        self.repeat(lambda: self._inner.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Json) -> None:
        self.repeat(lambda: self._inner.set_study_system_attr(study_id, key, value))

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        def write() -> None:
            self._inner.set_trial_param(trial_id, param_name, param_value_internal, distribution)

        def write_anyway() -> None:
            try:
                write()
            except KeyError:
                # A gRPC server that was restarted knows the trials only that were read since.
                self._inner.get_trial(trial_id)
                for study_id in list(self._study_ids):
                    self._inner.get_all_trials(study_id, deepcopy=False)
                write()

        self.repeat(write_anyway)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self.repeat(
            lambda: self._inner.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Json) -> None:
        self.repeat(lambda: self._inner.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Json) -> None:
        self.repeat(lambda: self._inner.set_trial_system_attr(trial_id, key, value))

    # Reading.

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.repeat(lambda: self._inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.repeat(lambda: self._inner.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.repeat(lambda: self._inner.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.repeat(lambda: self._inner.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.repeat(lambda: self._inner.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[Any]:
        return self.repeat(self._inner.get_all_studies)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self.repeat(
            lambda: self._inner.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def get_trial_number_from_id(self, trial_id: int) -> int:
        return self.repeat(lambda: self._inner.get_trial_number_from_id(trial_id))

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        return self.repeat(lambda: self._inner.get_trial_param(trial_id, param_name))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.repeat(lambda: self._inner.get_trial(trial_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        self._study_ids.add(study_id)
        if states == (TrialState.WAITING,) and not self.repeat(
            lambda: may_have_waiting_trials(self._inner, study_id)
        ):
            return []  # Each ask looks for them, and a full look is expensive.
        return self.repeat(lambda: self._inner.get_all_trials(study_id, deepcopy, states))

    def get_n_trials(
        self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None
    ) -> int:
        return self.repeat(lambda: self._inner.get_n_trials(study_id, state))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self.repeat(lambda: self._inner.get_best_trial(study_id))

    def get_trial_params(self, trial_id: int) -> dict[str, Any]:
        return self.repeat(lambda: self._inner.get_trial_params(trial_id))

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.repeat(lambda: self._inner.get_trial_user_attrs(trial_id))

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.repeat(lambda: self._inner.get_trial_system_attrs(trial_id))

    def remove_session(self) -> None:
        release_connection(self._inner)

    # The heartbeat.

    def record_heartbeat(self, trial_id: int) -> None:
        if not isinstance(self._inner, BaseHeartbeat):
            return
        inner = self._inner
        try:
            self.repeat(lambda: inner.record_heartbeat(trial_id))
        except StorageLostError:
            # The thread that calls this must live on: the storage may be back before the trial
            # ends. The trial itself learns of it at its next call.
            return

    def stale_trial_ids(self, study_id: int) -> list[int]:
        trials: list[int] = self.repeat(lambda: stale_trial_ids(self._inner, study_id))
        # The living have been silent in an outage as well, and need their time to speak up.
        interval = self.get_heartbeat_interval() or 0
        return [] if self._reconnection.ended_within(interval) else trials

    def get_heartbeat_interval(self) -> int | None:
        inner = self._inner
        return inner.get_heartbeat_interval() if isinstance(inner, BaseHeartbeat) else None

    def get_heartbeat_stale_trial_callback(
        self,
    ) -> Callable[[optuna.Study, FrozenTrial], None] | None:
        inner = self._inner
        if not isinstance(inner, BaseHeartbeat):
            return None
        return inner.get_heartbeat_stale_trial_callback()


def _same(found: Sequence[float] | None, values: Sequence[float]) -> bool:
    return found is not None and list(found) == list(values)
