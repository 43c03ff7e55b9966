"""The private names of Optuna that cannot be avoided, all in one place.

Optuna has no public way for a sampler to write to a trial or to read the trials of a study behind
a pruner's filter (https://github.com/optuna/optuna/issues/2327), nor one to write several
parameters at once. docs/optuna.md lists what would have to become public, and why;
tests/test_optuna_names.py keeps that list complete, and finds private names in other modules.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path
from queue import Empty
from queue import SimpleQueue
import time
from types import ModuleType
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

from optuna.exceptions import StorageInternalError
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages import GrpcStorageProxy
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages import _CachedStorage
from optuna.storages._heartbeat import BaseHeartbeat as BaseHeartbeat
from optuna.storages.journal import JournalRedisBackend
from optuna.trial import Trial
from optuna.trial import TrialState


if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages.journal import BaseJournalBackend
    from optuna.trial import FrozenTrial
    import redis
    from sqlalchemy.orm import Session

    from optuna_quant._common.json_value import Json


_GRPC_PING_SECONDS = 2.0

CONSTRAINT_PREFIX = "constraints:"
"""What the names of the system attributes begin with that hold the constraints of a trial."""


def study_identity(study: optuna.Study) -> tuple[BaseStorage, int]:
    """The storage object of a study, and the study's number in it."""
    return study._storage, study._study_id


def whole_study(study: optuna.Study) -> optuna.Study:
    """The study itself, where a pruner gives a sampler a view that shows only some of its trials.

    Hyperband does so; of its view nothing can be read but trials and what storages need.
    """
    return getattr(study, "_study", study)


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study, not copied: they must not be changed."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def study_system_attrs(study: optuna.Study) -> dict[str, Any]:
    """The system attributes of a study."""
    return study._storage.get_study_system_attrs(study._study_id)


def study_user_attrs(study: optuna.Study) -> dict[str, Any]:
    """The user attributes of a study, not copied: they must not be changed.

    Other threads may write: what goes through them makes a list first.
    """
    return study._storage.get_study_user_attrs(study._study_id)


def quick_system_attrs(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any] | None:
    """The system attributes of a trial, where reading them alone is cheaper than the study."""
    storage = bare_storage(getattr(study._storage, "inner", study._storage))
    if not isinstance(storage, RDBStorage):
        return None
    try:
        return storage.get_trial_system_attrs(trial._trial_id)
    except StorageInternalError:  # The next look at the study waits for the storage.
        return None


def set_study_system_attr(study: optuna.Study, key: str, value: Json) -> None:
    """Write a system attribute of a study."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def set_trial_system_attr(study: optuna.Study, trial: FrozenTrial, key: str, value: Json) -> None:
    """Write a system attribute of a running trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def set_trial_user_attr(study: optuna.Study, trial: FrozenTrial, key: str, value: Json) -> None:
    """Write a user attribute of a running trial."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def set_constraint(study: optuna.Study, trial: FrozenTrial, key: str, value: float) -> None:
    """What ``Trial.set_constraint`` does, for a frozen trial that still runs."""
    set_trial_system_attr(study, trial, f"{CONSTRAINT_PREFIX}{key}", value)


def fail_trial(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Mark a running trial as failed; :obj:`False` if it is not running any more."""
    try:
        return study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False


def fail_waiting(study: optuna.Study, trial: FrozenTrial, attrs: Mapping[str, Any]) -> bool:
    """Mark a trial of the queue as failed; :obj:`False` if a worker has taken it meanwhile."""
    if not study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
        return False
    for key, value in attrs.items():
        study._storage.set_trial_user_attr(trial._trial_id, key, value)
    return fail_trial(study, trial)


def trial_id(trial: FrozenTrial) -> int:
    """The number of a trial in its storage, over all studies."""
    return trial._trial_id


def running_trial_id(trial: optuna.Trial) -> int:
    """The number of a trial that runs in its storage, over all studies."""
    return trial._trial_id


def frozen_trial(trial: optuna.Trial) -> FrozenTrial:
    """A trial that runs, as the storage has it."""
    return trial.study._storage.get_trial(trial._trial_id)


def fix_parameters(trial: optuna.Trial, values: Mapping[str, Any]) -> None:
    """Have a running trial suggest given values, as an enqueued one does."""
    trial._fixed_params = {**trial._fixed_params, **values}


def latest_trial(trial: optuna.Trial) -> FrozenTrial:
    """A trial that runs, as this process knows it, with the system attributes in the storage."""
    latest, storage = trial._get_latest_trial(), trial.study._storage
    if trial.storage is not storage:  # Something stands before it, and knows what it holds only.
        attrs = quick_system_attrs(trial.study, latest)
        if attrs is None:
            attrs = storage.get_trial_system_attrs(trial._trial_id)
        latest.system_attrs = attrs
    return latest


def given_value(trial: optuna.trial.BaseTrial, name: str) -> object:
    """The value of a parameter with which a trial was enqueued; :obj:`None` if with none."""
    if not isinstance(trial, Trial):
        return None
    attrs = trial.study._storage.get_trial_system_attrs(trial._trial_id)
    return attrs.get("fixed_params", {}).get(name)


def is_stopping(study: optuna.Study) -> bool:
    """Whether ``study.stop`` was called in this process, and other threads end their trials."""
    return bool(study._stop_flag)


# Storages.


def bare_storage(storage: BaseStorage) -> BaseStorage:
    """The storage behind the cache that Optuna puts before a database."""
    return storage._backend if isinstance(storage, _CachedStorage) else storage


def cached_storage(storage: BaseStorage) -> BaseStorage:
    """What a study makes of a storage that it is given: a database gets a cache."""
    return _CachedStorage(storage) if isinstance(storage, RDBStorage) else storage


def stored_study_name(storage: BaseStorage, study_id: int) -> str:
    """The name of a study as the storage has it now, not a cache of it; KeyError if it is gone."""
    return bare_storage(getattr(storage, "inner", storage)).get_study_name_from_id(study_id)


def file_of(storage: BaseStorage) -> Path | None:
    """The file that a storage on this machine is kept in; :obj:`None` if it is in none."""
    storage = bare_storage(storage)
    if isinstance(storage, JournalStorage):
        path = getattr(storage._backend, "_file_path", None)
        return None if path is None else Path(path)
    if isinstance(storage, RDBStorage) and storage.engine.url.get_backend_name() == "sqlite":
        name = storage.engine.url.database
        named = bool(name) and name != ":memory:" and not str(name).startswith("file:")
        return Path(str(name)) if named else None
    return None


def has_file(storage: BaseStorage) -> bool:
    """Whether the file of a storage is there, and the same; true of one without a file."""
    bare = bare_storage(storage)
    if isinstance(bare, JournalStorage):
        is_there = getattr(bare._backend, "is_there", None)
        if is_there is not None:
            return bool(is_there())
    file = file_of(storage)
    return file is None or file.exists()


def set_attributes(
    storage: RDBStorage,
    session: Session,
    trial_id: int,
    *,
    user: Mapping[str, Any],
    system: Mapping[str, Any],
) -> None:
    """Set attributes of a trial within a transaction."""
    from optuna.storages._rdb import models

    for key, value in user.items():
        storage._set_trial_attr_without_commit(
            session, models.TrialUserAttributeModel, trial_id, key, value
        )
    for key, value in system.items():
        storage._set_trial_attr_without_commit(
            session, models.TrialSystemAttributeModel, trial_id, key, value
        )


def database_models() -> ModuleType:
    """The tables of a database."""
    from optuna.storages._rdb import models

    return models


def append_to_trial(
    storage: JournalStorage,
    trial_id: int,
    *,
    params: Sequence[dict[str, Any]],
    user_attrs: Mapping[str, Any],
    system_attrs: Mapping[str, Any],
) -> None:
    """Append entries to a journal that set parameters and attributes of a trial, in one piece.

    Args:
        storage:
            The journal.
        trial_id:
            The trial.
        params:
            The fields of the entries of its parameters.
        user_attrs:
            The user attributes to set.
        system_attrs:
            The system attributes to set.
    """
    from optuna.storages.journal._storage import JournalOperation

    # The name of no thread: an entry that turns out to be refused, because the trial has ended,
    # would raise in each of the thread's next calls, one after the other.
    worker = "optuna_quant: parameters"
    logs: list[dict[str, Any]] = [
        {"op_code": code.value, "worker_id": worker, "trial_id": trial_id, **entry}
        for code, entries in (
            (JournalOperation.SET_TRIAL_PARAM, params),
            (
                JournalOperation.SET_TRIAL_USER_ATTR,
                [{"user_attr": {key: value}} for key, value in user_attrs.items()],
            ),
            (
                JournalOperation.SET_TRIAL_SYSTEM_ATTR,
                [{"system_attr": {key: value}} for key, value in system_attrs.items()],
            ),
        )
        for entry in entries
    ]
    if logs:
        append_logs(storage._backend, logs)


def append_logs(backend: BaseJournalBackend, logs: list[dict[str, Any]]) -> None:
    """Append entries to a journal: in Redis with one call for all, where that can be."""
    if not isinstance(backend, JournalRedisBackend) or backend._use_cluster:
        backend.append_logs(logs)
        return
    script = (
        "redis.call('setnx', KEYS[1], -1) "
        "for k, log in ipairs(ARGV) do if k > 1 then "
        "redis.call('set', ARGV[1] .. ':log:' .. redis.call('incr', KEYS[1]), log) end end"
    )
    key = f"{backend._prefix}:log_number"
    texts = [json.dumps(log) for log in logs]
    backend._redis.eval(script, 1, key, backend._prefix, *texts)


def redis_client(backend: JournalRedisBackend) -> redis.Redis:
    """The connection of a journal in Redis."""
    return backend._redis


def set_redis_client(backend: JournalRedisBackend, client: redis.Redis) -> None:
    """Exchange the connection of a journal in Redis."""
    backend._redis = client


class HeartbeatStorage(BaseStorage, BaseHeartbeat):
    """A storage with Optuna's heartbeat, which asks it for the trials that have had none."""

    @abc.abstractmethod
    def stale_trial_ids(self, study_id: int) -> list[int]:
        """The running trials of a study that sent no heartbeat for too long."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return self.stale_trial_ids(study_id)


class ParameterRow(Protocol):
    """A row of the table of parameters."""

    param_id: int
    param_name: str
    param_value: float
    distribution_json: str


class TrialRow(Protocol):
    """A row of the table of trials."""

    trial_id: int
    params: Sequence[ParameterRow]


class HookedRDBStorage(RDBStorage):
    """A database storage that lets a subclass read parameters, and see them written."""

    @abc.abstractmethod
    def parameters_of(self, trial: TrialRow) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """The parameters of a row of the table of trials, and their distributions."""

    @abc.abstractmethod
    def parameter_was_written(self, trial_id: int) -> None:
        """A parameter of a trial was set."""

    def _set_trial_param(self, trial_id: int, *args: Any, **kwargs: Any) -> None:
        super()._set_trial_param(trial_id, *args, **kwargs)
        self.parameter_was_written(trial_id)

    def _build_frozen_trial_from_trial_model(self, trial: Any) -> FrozenTrial:
        bare: Any = _WithoutParameters(trial)
        frozen = super()._build_frozen_trial_from_trial_model(bare)
        frozen.params, frozen.distributions = self.parameters_of(trial)
        return frozen


class _WithoutParameters:
    """A row of the table of trials that seems to have no parameters."""

    params = ()

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


class RetryingGrpcStorage(GrpcStorageProxy):
    """A storage behind gRPC that looks for a lost server every second, not every two minutes."""

    def __init__(self, *, host: str, port: int) -> None:
        self.address = f"{host}:{port}"
        super().__init__(host=host, port=port)

    def _setup(self) -> None:
        super()._setup()
        self._channel.close()
        self._channel = _grpc_channel(self.address)
        self._stub = type(self._stub)(self._channel)
        self._cache = type(self._cache)(self._stub)

    def wait_server_ready(self, timeout: float | None = None) -> None:
        """As Optuna's, which looks less often."""
        with _grpc_channel(self.address) as channel:
            _wait_for_channel(channel, timeout)

    def ping(self, timeout: float) -> None:
        """Make a new connection, and wait until calls have one as well.

        Raises:
            ConnectionError:
                As soon as that fails, or after the timeout.
        """
        import grpc

        states: SimpleQueue[Any] = SimpleQueue()
        until = time.monotonic() + timeout
        with _grpc_channel(self.address, ("grpc.use_local_subchannel_pool", 1)) as channel:
            channel.subscribe(states.put, try_to_connect=True)
            state = None
            while state is not grpc.ChannelConnectivity.READY:
                try:
                    state = states.get(timeout=max(0.0, until - time.monotonic()))
                except Empty:
                    raise ConnectionError("gRPC connection timeout") from None
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise ConnectionError("gRPC connection failed")
        # Otherwise they fail until the channel tries again by itself.
        _wait_for_channel(self._channel, timeout)


def _grpc_channel(address: str, *more: tuple[str, int]) -> Any:
    import grpc

    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return grpc.insecure_channel(address, options=[*options, *more])


def _wait_for_channel(channel: Any, timeout: float | None) -> None:
    import grpc

    try:
        grpc.channel_ready_future(channel).result(timeout=timeout)
    except grpc.FutureTimeoutError as error:
        raise ConnectionError("gRPC connection timeout") from error


def ping(storage: BaseStorage) -> None:
    """Make a new connection to the server of a storage; do nothing where there is none.

    Raises:
        Exception:
            Whatever the attempt raises.
    """
    storage = bare_storage(storage)
    if isinstance(storage, RDBStorage):
        from sqlalchemy import text

        with storage.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    elif isinstance(storage, JournalStorage):
        if isinstance(storage._backend, JournalRedisBackend):
            storage._backend._redis.ping()
    elif isinstance(storage, RetryingGrpcStorage):
        storage.ping(_GRPC_PING_SECONDS)
    elif isinstance(storage, GrpcStorageProxy):
        storage.wait_server_ready(timeout=_GRPC_PING_SECONDS)


def stale_trial_ids(storage: BaseStorage, study_id: int) -> list[int]:
    """The running trials of a study that sent no heartbeat for too long."""
    return storage._get_stale_trial_ids(study_id) if isinstance(storage, BaseHeartbeat) else []
