"""How long a kept value took is kept beside it; it decides nothing and damages nothing."""

from __future__ import annotations

import optuna
import pytest

from optuna_quant import _optuna
from optuna_quant.study import computing_times as module
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.computing_times import computing_times
from optuna_quant.study.computing_times import timed
from optuna_quant.study.record_check import check_record
from optuna_quant.workers.identity import this_worker


@pytest.fixture(autouse=True)
def everything_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_SECONDS", 0.0)


def test_a_value_that_is_computed_is_timed() -> None:
    study = optuna.create_study()
    assert ComputeOnce(study, "costs:1").get(lambda: b"value") == b"value"
    (found,) = computing_times(study)
    assert (found.kind, found.worker) == ("costs", this_worker())
    assert found.seconds >= 0
    # What is there already is not computed, and not timed again.
    assert ComputeOnce(study, "costs:1").get(lambda: b"other") == b"value"
    assert computing_times(study) == [found]


def test_what_fails_is_not_timed() -> None:
    study = optuna.create_study()
    with pytest.raises(RuntimeError), timed(study, "costs:1"):
        raise RuntimeError
    assert computing_times(study) == []


def test_a_storage_that_refuses_does_not_lose_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()

    def refuse(*args: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched, timed(study, "costs:1"):
        patched.setattr(_optuna, "set_study_system_attr", refuse)
    assert computing_times(study) == []


def test_times_are_no_part_of_what_is_checked() -> None:
    study = optuna.create_study()
    with timed(study, "costs:1"):
        pass
    check_record(study)
    _optuna.set_study_system_attr(study, "optuna_quant.seconds:costs:2", "nonsense")
    check_record(study)
    assert len(computing_times(study)) == 1
