"""A study that is deleted, or whose file is removed, while a search works on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
import pytest

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.storages.open import open_storage
from optuna_quant.study.gone import StudyGoneError
from optuna_quant.study.gone import why_gone
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def address(kind: str, folder: Path) -> str:
    return f"sqlite:///{folder / 'record'}" if kind == "sqlite" else str(folder / "record")


def go(storage: str, evaluate: Any) -> None:
    tune(
        backend=FakeBackend({"a": 0.2, "b": 0.2, "c": 0.0}),
        evaluate=evaluate,
        storage=storage,
        study_name="mine",
        accuracy_criterion=CRITERION,
        tuning_criterion=TuningCriterion(timeout=None, strategy="basic"),
    )


class At:
    """Does something at a certain evaluation."""

    def __init__(self, at: int, action: Any) -> None:
        self._at = at
        self._action = action
        self._calls = 0

    def __call__(self, model: FakeModel) -> float:
        self._calls += 1
        if self._calls == self._at:
            self._action()
        return model.accuracy


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_study_that_was_deleted_is_said_to_be(tmp_path: Path, kind: str, at: int) -> None:
    url = address(kind, tmp_path)

    def delete() -> None:
        optuna.delete_study(study_name="mine", storage=open_storage(url))

    with pytest.raises(StudyGoneError, match="The study 'mine' was deleted while this process w"):
        go(url, At(at, delete))
    go(url, CountingEvaluation())  # The same call begins it again.


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_file_that_was_removed_is_said_to_be(tmp_path: Path, kind: str, at: int) -> None:
    def remove() -> None:
        for file in tmp_path.iterdir():
            file.unlink()

    with pytest.raises(StudyGoneError, match="study 'mine' is gone: '.*/record', which held it"):
        go(address(kind, tmp_path), At(at, remove))
    assert list(tmp_path.iterdir()) == []  # No empty one was made in its place.


def test_a_journal_that_was_replaced_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "record"

    def replace() -> None:
        whole = path.read_bytes()
        path.rename(tmp_path / "kept")
        path.write_bytes(whole)

    with pytest.raises(StudyGoneError, match="was removed or replaced"):
        go(str(path), At(2, replace))


def test_a_study_by_hand_stops_where_its_file_was_removed(tmp_path: Path) -> None:
    url = address("sqlite", tmp_path)
    storage = open_storage(url, heartbeat=False)
    study = optuna.create_study(storage=storage, study_name="mine", direction="maximize")
    backend = FakeBackend(2)
    counting = CountingEvaluation()
    objective = QuantObjective(backend, backend.tuning_space(), counting, CRITERION)
    trial = study.ask()
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StudyGoneError, match="study 'mine' is gone"):
        objective(trial)
    assert counting.seen == []


@pytest.mark.parametrize("kind", ["sqlite", "journal", "memory"])
def test_other_errors_are_left_as_they_are(tmp_path: Path, kind: str) -> None:
    storage = open_storage(None if kind == "memory" else address(kind, tmp_path))
    study = optuna.create_study(storage=storage, study_name="mine", direction="maximize")
    assert why_gone(study) is None
    other = optuna.create_study(storage=storage, study_name="other")
    optuna.delete_study(study_name="other", storage=study._storage)
    assert why_gone(study) is None
    assert "'other' was deleted" in (why_gone(other) or "")

    def fail() -> None:
        raise AttributeError("of the user")

    if kind != "memory":
        with pytest.raises(ValueError, match="AttributeError: of the user"):
            go(address(kind, tmp_path), At(1, fail))
