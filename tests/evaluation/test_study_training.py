"""The trial of a study in which a model is trained: hyperparameters, reports, checkpoints."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import TrialPruned
from optuna.trial import TrialState
import pytest
from spaces import make_space

from optuna_quant.evaluation.study_training import StudyTraining
from optuna_quant.study.record_check import check_record
from optuna_quant.study.trial_view import TrialView


NAME = "trained:0123"


def training(
    study: optuna.Study, store: FileSystemArtifactStore | None = None
) -> tuple[optuna.Trial, StudyTraining]:
    trial = study.ask()
    return trial, StudyTraining(trial, make_space(), store, lambda: None)


def failed_with(
    study: optuna.Study, store: FileSystemArtifactStore, step: int, lr: float, name: str = NAME
) -> int:
    """A trial that fails after it has saved a state."""
    study.enqueue_trial({"lr": lr})
    trial, made = training(study, store)
    trial.suggest_float("lr", 0.0, 1.0)
    made.save(name, f"state {step}".encode(), step)
    study.tell(trial, state=TrialState.FAIL)
    return trial.number


def test_parameters_of_the_space_are_no_hyperparameters() -> None:
    trial, made = training(optuna.create_study())
    make_space().suggest(trial)
    trial.suggest_float("lr", 0.0, 1.0)
    assert list(made.hyperparameters) == ["lr"]


def test_the_furthest_checkpoint_is_resumed_with_its_hyperparameters(tmp_path: Path) -> None:
    study, store = optuna.create_study(), FileSystemArtifactStore(tmp_path)
    failed_with(study, store, 1, 0.1)
    furthest = failed_with(study, store, 3, 0.3)
    failed_with(study, store, 2, 0.2)
    failed_with(study, store, 9, 0.9, name="another")

    trial, made = training(study, store)
    assert made.resume(NAME) == (b"state 3", 3)
    assert trial.suggest_float("lr", 0.0, 1.0) == 0.3
    assert TrialView.of_running(trial).resumed == furthest

    # While this one runs, the next goes on with another; if this one fails as well, with this.
    _, other = training(study, store)
    assert other.resume(NAME) == (b"state 2", 2)
    study.tell(trial, state=TrialState.FAIL)
    _, third = training(study, store)
    assert third.resume(NAME) == (b"state 3", 3)
    check_record(study)


def test_a_trial_keeps_its_last_checkpoint_until_it_has_a_result(tmp_path: Path) -> None:
    study, store = optuna.create_study(), FileSystemArtifactStore(tmp_path)
    failed_with(study, store, 1, 0.1)
    _, made = training(study, store)
    made.resume(NAME)
    made.save(NAME, b"two", 2)
    made.save(NAME, b"three", 3)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"three"]
    made.discard()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_gone_is_told_and_left_out(tmp_path: Path) -> None:
    study, store = optuna.create_study(), FileSystemArtifactStore(tmp_path)
    number = failed_with(study, store, 1, 0.1)
    for path in tmp_path.iterdir():
        path.unlink()
    trial, made = training(study, store)
    with pytest.warns(UserWarning, match=f"checkpoint of trial {number}.*starts over"):
        assert made.resume(NAME) is None
    assert TrialView.of_running(trial).resumed is None


def test_any_pruner_may_end_it() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.0))
    trial, made = training(study)
    made.report(0.5, 0)
    with pytest.raises(TrialPruned, match="at step 1, with 2"):
        made.report(2.0, 1)
    made.report(2.0, 2, pruner=optuna.pruners.NopPruner())
    assert study.trials[trial.number].intermediate_values == {0: 0.5, 1: 2.0, 2: 2.0}


def test_several_objectives_have_no_pruners() -> None:
    study = optuna.create_study(
        directions=["minimize", "minimize"], pruner=optuna.pruners.ThresholdPruner(upper=1.0)
    )
    _, made = training(study)
    made.report(2.0, 1)


def test_a_report_ends_what_is_late() -> None:
    def late() -> None:
        raise TimeoutError

    made = StudyTraining(optuna.create_study().ask(), make_space(), None, late)
    with pytest.raises(TimeoutError):
        made.report(0.5, 0)
