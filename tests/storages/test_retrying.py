"""A storage that waits for its server is otherwise the same as the one inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import pickle
import time
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.testing import pytest_storages
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState
import pytest
import services

from optuna_quant.storages import reconnection
from optuna_quant.storages.journal_redis import JournalRedis
from optuna_quant.storages.open import open_storage
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.storages.trial_starts import STARTED_BY


class TestContract(StorageTestCase):
    """Optuna's own tests of storages, for one that waits."""

    @pytest.fixture(autouse=True)
    def few_trials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three studies of sixteen trials, in all states, show what ten or twenty of them do."""
        real = pytest_storages._setup_studies

        def setup(storage: BaseStorage, n_study: int, n_trial: int, **others: Any) -> Any:
            return real(storage, n_study=min(3, n_study), n_trial=min(16, n_trial), **others)

        monkeypatch.setattr(pytest_storages, "_setup_studies", setup)

    @pytest.fixture(params=["memory", "sqlite", "journal", "redis"])
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
        if request.param == "memory":
            yield RetryingStorage(InMemoryStorage())
            return
        with services.storage_url(request.param, tmp_path) as url:
            if request.param == "redis":
                address, _, prefix = url.partition("#")
                yield RetryingStorage(JournalStorage(JournalRedis(address, prefix=prefix)))
            else:
                yield RetryingStorage(services.open_storage(url))

    def test_create_new_trial(self, storage: BaseStorage) -> None:
        """As Optuna's, but for the one attribute that a new trial has."""
        study = storage.create_new_study(directions=[StudyDirection.MINIMIZE])
        begin = time.time()
        ids = [storage.create_new_trial(study) for _ in range(3)]
        end = time.time()
        trials = storage.get_all_trials(study)
        assert [trial._trial_id for trial in trials] == ids
        assert [trial.number for trial in trials] == [0, 1, 2]
        assert {trial.state for trial in trials} == {TrialState.RUNNING}
        assert len({trial.system_attrs[STARTED_BY] for trial in trials}) == 3
        for trial in trials:
            assert trial.datetime_start is not None
            assert begin - 1 < trial.datetime_start.timestamp() < end + 1
            assert trial.datetime_complete is None
            assert (trial.params, trial.user_attrs, trial.intermediate_values) == ({}, {}, {})
            assert set(trial.system_attrs) == {STARTED_BY}

    def test_set_trial_system_attr(self, storage: BaseStorage) -> None:
        """As Optuna's, but for the one attribute that a new trial has."""
        study = storage.create_new_study(directions=[StudyDirection.MINIMIZE])
        trial = storage.create_new_trial(study)
        before = storage.get_trial(trial).system_attrs
        for key, value in (("a", 1), ("b", [None, "x"]), ("a", {"k": 2.5})):
            storage.set_trial_system_attr(trial, key, value)
        wanted = {**before, "a": {"k": 2.5}, "b": [None, "x"]}
        assert storage.get_trial(trial).system_attrs == wanted
        assert storage.get_trial_system_attrs(trial) == wanted
        with pytest.raises(KeyError):
            storage.set_trial_system_attr(trial + 1, "a", 1)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.0])
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            storage.set_trial_system_attr(trial, "a", 1)


def test_study_runs_with_it_as_with_any_storage(tmp_path: Path) -> None:
    with services.storage_url("postgresql", tmp_path) as url:
        storage = open_storage(url)
        assert isinstance(storage, RetryingStorage)
        study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
        assert study._storage is storage  # Nothing is put before it.
        study.enqueue_trial({"x": 0.25})
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4, n_jobs=2)
        other = pickle.loads(pickle.dumps(storage))
        again = optuna.create_study(storage=other, study_name="s", load_if_exists=True)
        again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5
        assert study.trials[0].params == {"x": 0.25}
        assert storage.get_heartbeat_interval() == 60
        database: Any = storage.inner
        rows = _count(database._backend, "trial_heartbeats")
        assert rows == 5
        assert RetryingStorage(InMemoryStorage()).get_heartbeat_interval() is None


def _count(database: Any, table: str) -> int:
    import sqlalchemy

    with database.engine.connect() as connection:
        found: int = connection.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar()
        return found


def test_no_worker_is_stale_right_after_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with services.storage_url("sqlite", tmp_path) as url:
        inner = RDBStorage(url, heartbeat_interval=1, grace_period=2)
        storage = RetryingStorage(inner)
        monkeypatch.setattr(
            type(storage.inner), "_get_stale_trial_ids", lambda self, study_id: [7]
        )
        assert storage.stale_trial_ids(1) == [7]
        storage._reconnection._back_since = back_since = time.monotonic()
        assert storage.stale_trial_ids(1) == []
        monkeypatch.setattr(reconnection, "_LONGEST_PAUSE_SECONDS", 0.1)
        storage._reconnection._back_since = back_since - 1.3
        assert storage.stale_trial_ids(1) == [7]


def test_timeout_is_not_negative() -> None:
    with pytest.raises(ValueError, match="timeout must not be negative, but got -1"):
        RetryingStorage(InMemoryStorage(), timeout=-1)
