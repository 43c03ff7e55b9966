"""A trial is written at once, into each kind of storage in its own way."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import GrpcStorageProxy
from optuna.storages import InMemoryStorage
import pytest
from storages.written_studies import DISTRIBUTIONS
from storages.written_studies import fresh
from storages.written_studies import suggest_all

from optuna_quant.storages import database_writes
from optuna_quant.storages.bulk_writes import write_trial
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.storages.written_values import Parameter
from optuna_quant.storages.written_values import Written


def test_unknown_trial_is_an_error(study: optuna.Study) -> None:
    with pytest.raises(KeyError):
        write_trial(
            study._storage,
            study._study_id,
            12345,
            Written([Parameter("x", 0.5, FloatDistribution(0, 1))], {}, {}),
        )


@pytest.mark.parametrize("shared", ["sqlite", "postgresql", "mysql"], indirect=True)
def test_parameter_that_is_there_keeps_its_value(study: optuna.Study) -> None:
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    distribution = FloatDistribution(0, 1)
    params = [Parameter(name, 0.25, distribution) for name in ("w", "x", "y", "w")]
    for _ in range(2):  # As after a connection that broke at the very end.
        write_trial(study._storage, study._study_id, trial._trial_id, Written(params, {}, {}))
    assert fresh(study)[0].params == {"x": x, "w": 0.25, "y": 0.25}


@pytest.mark.parametrize("shared", ["postgresql", "mysql", "sqlite"], indirect=True)
def test_database_is_asked_for_distributions_once_in_a_process(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = database_writes._distributions

    def counted(session: Any, study_id: int, names: Any, texts: Any) -> Any:
        asked.append(len(names))
        return real(session, study_id, names, texts)

    monkeypatch.setattr(database_writes, "_distributions", counted)
    for _ in range(3):
        trial = study.ask()
        with buffered_writes(trial):
            suggest_all(trial, DISTRIBUTIONS)
    assert asked == [len(DISTRIBUTIONS), 0, 0]


def test_storage_that_is_not_known_is_written_one_by_one() -> None:
    class Other(InMemoryStorage):
        calls = 0

        def set_trial_param(self, *args: Any) -> None:
            self.calls += 1
            super().set_trial_param(*args)

    storage = Other()
    trial = optuna.create_study(storage=storage).ask()
    with buffered_writes(trial):
        suggest_all(trial, DISTRIBUTIONS)
        assert storage.calls == 0
    assert storage.calls == len(DISTRIBUTIONS)
    assert not isinstance(storage, GrpcStorageProxy)
