"""What buffered_writes promises: one write for all, the same record, no error hidden."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
import pickle
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest
import services
from spaces import make_space
from storages.written_studies import DISTRIBUTIONS
from storages.written_studies import fresh
from storages.written_studies import suggest_all

from optuna_quant.storages import bulk_writes
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.storages.write_buffer import unbuffered
from optuna_quant.storages.written_values import Written


# In memory a trial and its storage are one object.
elsewhere = pytest.mark.parametrize("shared", services.STORAGES, indirect=True)


class Writes:
    """Counts what reaches the storage at the lowest level."""

    def __init__(self, storage: BaseStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        bare: Any = storage
        while not isinstance(bare, (RDBStorage, JournalStorage, InMemoryStorage)):
            bare = bare.inner if isinstance(bare, RetryingStorage) else bare._backend
        if isinstance(bare, RDBStorage):
            import sqlalchemy

            sqlalchemy.event.listen(bare.engine, "commit", self._add)
        elif isinstance(bare, JournalStorage):
            backend: Any = bare._backend
            if hasattr(backend, "_redis"):
                self._wrap(backend._redis, "eval", monkeypatch)
            else:
                self._wrap(backend, "append_logs", monkeypatch)

    def _add(self, *args: Any) -> None:
        self.count += 1

    def _wrap(self, target: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(target, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(target, name, counted)


def content(trial: FrozenTrial) -> list[tuple[str, Any, type, str]]:
    return [
        (name, value, type(value), repr(trial.distributions[name]))
        for name, value in trial.params.items()
    ]


# The record.


def test_record_is_the_one_that_optuna_writes(study: optuna.Study) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    plain = study.ask()
    suggest_all(plain, DISTRIBUTIONS)
    for _ in range(2):
        held = study.ask()
        held._relative_params = {}
        held._fixed_params = plain.params
        with buffered_writes(held):
            suggest_all(held, DISTRIBUTIONS)
            assert held.params == plain.params
        one, *_, other = (trial for trial in fresh(study) if trial.params)
        assert content(one) == content(other)
        assert one.distributions == other.distributions
        study.tell(held, 1.0)
    assert study.trials[-1].params == plain.params


def test_text_in_the_database_is_the_one_that_optuna_writes(tmp_path: Path) -> None:
    import sqlite3

    with services.storage_url("sqlite", tmp_path) as url:
        study = services.create(url)
        study.sampler = optuna.samplers.RandomSampler(seed=3)
        for hold in (False, True):
            trial = study.ask(fixed_distributions={} if hold else DISTRIBUTIONS)
            if hold:
                trial._fixed_params = study.trials[0].params
                with buffered_writes(trial):
                    suggest_all(trial, DISTRIBUTIONS)
    with sqlite3.connect(tmp_path / "study.db") as database:
        rows = [
            database.execute(
                "SELECT param_name, param_value, distribution_json FROM trial_params "
                "WHERE trial_id = ? ORDER BY param_id",
                (number,),
            ).fetchall()
            for number in (1, 2)
        ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(DISTRIBUTIONS)


@elsewhere
def test_everything_is_one_write(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        trial = study.ask()
        writes = Writes(study._storage, monkeypatch)
        with buffered_writes(trial):
            suggest_all(trial, DISTRIBUTIONS)
            before = writes.count
        assert writes.count == before + 1
        study.tell(trial, 1.0)
        assert len(fresh(study)[-1].params) == len(DISTRIBUTIONS)


@elsewhere
def test_others_see_the_parameters_at_the_end_only(study: optuna.Study) -> None:
    trial = study.ask()
    with buffered_writes(trial):
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("seen", True)
        trial.set_constraint("c", -1.0)
        (other,) = fresh(study)
        assert other.params == {}
        assert other.user_attrs == {"seen": True}
        assert trial.constraints == {"c": -1.0}
    assert fresh(study)[0].params == trial.params


@elsewhere
def test_same_name_twice_and_blocks_within_blocks(study: optuna.Study) -> None:
    trial = study.ask()
    storage = trial.storage
    with buffered_writes(trial):
        with buffered_writes(trial):
            x = trial.suggest_float("x", 0, 1)
        assert fresh(study)[0].params == {}
        assert trial.suggest_float("x", 0, 1) == x
        y = trial.suggest_int("y", 0, 9)
    assert trial.storage is storage
    assert fresh(study)[0].params == {"x": x, "y": y}
    with buffered_writes(trial):
        assert trial.suggest_float("x", 0, 1) == x
        z = trial.suggest_int("z", 0, 9)
    assert fresh(study)[0].params == {"x": x, "y": y, "z": z}
    study.tell(trial, 1.0)


def test_pruner_and_sampler_work_as_ever_inside(study: optuna.Study) -> None:
    study.sampler = optuna.samplers.TPESampler(seed=1, n_startup_trials=2)

    def objective(trial: optuna.Trial) -> float:
        with buffered_writes(trial):
            x = trial.suggest_float("x", -1, 1)
            trial.report(x, step=1)
            trial.should_prune()
            if trial.number == 1:
                raise optuna.TrialPruned
            return x

    study.optimize(objective, n_trials=5)
    trials = fresh(study)
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 4
    assert all(set(trial.params) == {"x"} for trial in trials)


@pytest.mark.parametrize("make", [lambda p: optuna.trial.FixedTrial(p), lambda p: p])
def test_trial_without_a_storage_passes(make: Any) -> None:
    space = make_space()
    params = space.params_of(space.default())
    trial = make(params)
    if isinstance(trial, dict):
        trial = optuna.trial.create_trial(
            params=params, distributions=space.distributions(), value=1.0
        )
    with buffered_writes(trial):
        assert space.suggest(trial) == space.default()


def test_space_writes_all_its_parameters_at_once(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space()
    trial = study.ask()
    calls: list[int] = []
    real = bulk_writes.write_trial

    def counted(
        storage: Any, study_id: int, trial_id: int, written: Written, **known: Any
    ) -> None:
        calls.append(len(written.params))
        real(storage, study_id, trial_id, written, **known)

    monkeypatch.setattr("optuna_quant.storages.write_buffer.write_trial", counted)
    config = space.suggest(trial)
    assert calls == [len(space.parameters)]
    assert space.config_from_params(fresh(study)[0].params) == config


@elsewhere
def test_attributes_wait_as_well_where_that_is_asked_for(study: optuna.Study) -> None:
    trial = study.ask()
    with buffered_writes(trial, attributes=True):
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("late", [1, {"a": None}])
        trial.set_constraint("c", 0.5)
        with unbuffered(trial):
            trial.set_user_attr("early", "now")
        assert trial.user_attrs == {"late": [1, {"a": None}], "early": "now"}
        seen = fresh(study)[0]
        assert (seen.params, seen.user_attrs, seen.constraints) == ({}, {"early": "now"}, {})
    seen = fresh(study)[0]
    assert seen.params == {"x": x}
    assert seen.user_attrs == {"late": [1, {"a": None}], "early": "now"}
    assert seen.constraints == {"c": 0.5}
    trial.set_user_attr("late", 2)
    trial.set_constraint("d", 1.0)
    y = trial.suggest_float("y", 0, 1)
    study.tell(trial, 1.0)
    seen = fresh(study)[0]
    assert seen.user_attrs == {"late": 2, "early": "now"}
    assert seen.constraints == {"c": 0.5, "d": 1.0}
    # What this process wrote is read as it is, by itself as well.
    assert seen.params == study.trials[0].params == {"x": x, "y": y}
    assert seen.distributions == study.trials[0].distributions


def test_holder_can_be_copied() -> None:
    trial = optuna.create_study().ask()
    with buffered_writes(trial):
        holder: Any = trial.storage
        assert isinstance(pickle.loads(pickle.dumps(holder._params)), list)
        assert type(copy.copy(holder)) is type(holder)
        with pytest.raises(AttributeError, match="nonsense"):
            _ = holder.nonsense


# Errors.


class OwnError(Exception):
    pass


def test_parameters_are_written_whatever_ends_the_block(study: optuna.Study) -> None:
    errors: list[type[BaseException]] = [OwnError, optuna.TrialPruned, KeyboardInterrupt]
    for error in errors:
        trial = study.ask()
        storage = trial.storage
        with pytest.raises(error), buffered_writes(trial):
            x = trial.suggest_float("x", 0, 1)
            raise error
        assert trial.storage is storage
        assert fresh(study)[-1].params == {"x": x}


@elsewhere
def test_trial_that_somebody_has_ended_is_an_error(study: optuna.Study) -> None:
    trial = study.ask()
    with pytest.raises(UpdateFinishedTrialError), buffered_writes(trial):
        suggest_all(trial, DISTRIBUTIONS)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert fresh(study)[0].params == {}
    # Nothing of it comes up again.
    study.set_user_attr("k", 1)
    study.optimize(lambda trial: trial.suggest_float("zeta", 1e-5, 1.0, log=True), n_trials=1)
    assert study.trials[-1].state == TrialState.COMPLETE


def test_error_of_the_block_is_not_hidden(
    study: optuna.Study, caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    trial = study.ask()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(OwnError) as caught,
        buffered_writes(trial),
    ):
        trial.suggest_float("x", 0, 1)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        raise OwnError
    assert "were not written" in caught.value.__notes__[0]
    assert "were not written" in caplog.text


def test_distribution_that_does_not_fit_is_an_error_and_the_rest_is_as_in_optuna(
    study: optuna.Study,
) -> None:
    first = study.ask()
    with buffered_writes(first):
        first.suggest_float("a", 0, 1)
        first.suggest_categorical("b", ("x", "y"))
    params = {}
    for hold in (False, True):
        # Another process, which knows nothing of the study yet.
        if hold:
            study = copy.copy(study)
            study._storage = pickle.loads(pickle.dumps(study._storage))
        trial = study.ask()
        with pytest.raises(ValueError):
            if hold:
                with buffered_writes(trial):
                    trial.suggest_float("a", 0, 2)
                    trial.suggest_categorical("b", ("x", "z"))
                    trial.suggest_float("c", 0, 2)
            else:
                trial.suggest_float("a", 0, 2)
                trial.suggest_categorical("b", ("x", "z"))
        params[hold] = set(fresh(study)[trial.number].params)
    if not isinstance(study._storage, InMemoryStorage):
        assert params[True] == params[False] == {"a"}


def test_threads_write_side_by_side(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        with buffered_writes(trial):
            suggest_all(trial, DISTRIBUTIONS)
            return 1.0

    study.sampler = optuna.samplers.RandomSampler(seed=1)
    study.optimize(objective, n_trials=8, n_jobs=4)
    assert [len(trial.params) for trial in fresh(study)] == [len(DISTRIBUTIONS)] * 8


# The cost.


@elsewhere
def test_writes_do_not_grow_with_the_parameters(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    writes = Writes(study._storage, monkeypatch)
    counts = []
    for ops in (5, 500):
        many = {f"op{i}": CategoricalDistribution(("int8", "fp32", "bf16")) for i in range(ops)}
        writes.count = 0
        trial = study.ask()
        with buffered_writes(trial):
            suggest_all(trial, many)
        study.tell(trial, 1.0)
        counts.append(writes.count)
        assert len(fresh(study)[-1].params) == ops
    assert 0 < counts[1] == counts[0]
