"""A study that holds only its baseline is started over; one with results, or in use, is not."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study import renewal
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.errors import ChangedEvaluationError
from optuna_quant.study.renewal import renew
from optuna_quant.workers.identity import this_worker


CHANGED = ChangedError("The study was started with other labels. Give those.")


def new_study() -> optuna.Study:
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), study_name="mine", direction="maximize"
    )
    study.set_user_attr("optuna_quant:space:quant", "of the old data")
    return study


def number_of(study: optuna.Study) -> int:
    return _optuna.study_identity(study)[1]


def test_it_has_the_name_and_nothing_of_ours() -> None:
    study = new_study()
    failed = study.ask()
    study.tell(failed, state=TrialState.FAIL)
    renewed = renew(study, CHANGED)
    assert number_of(renewed) != number_of(study)
    assert (renewed.study_name, renewed.direction) == ("mine", study.direction)
    assert (renewed.sampler, renewed.pruner) == (study.sampler, study.pruner)
    assert renewed.trials == []
    ours = {name for name in renewed.user_attrs if name.startswith("optuna_quant:space")}
    assert ours == set()
    assert optuna.get_all_study_names(_optuna.study_identity(renewed)[0]) == ["mine"]


def test_what_the_user_has_put_there_is_kept() -> None:
    study = new_study()
    study.set_user_attr("owner", "me")
    study.enqueue_trial({"x": 1})
    study.enqueue_trial({"x": 2})
    renewed = renew(study, CHANGED)
    assert renewed.user_attrs["owner"] == "me"
    (first, second) = renewed.get_trials(states=(TrialState.WAITING,))
    assert [t.system_attrs["fixed_params"] for t in (first, second)] == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize("trial", [None, 0])
def test_a_baseline_is_kept_if_it_was_given(trial: int | None) -> None:
    study = new_study()
    set_baseline(study, Baseline(0.9, trial))
    kept = get_baseline(renew(study, CHANGED))
    assert kept == (Baseline(0.9) if trial is None else None)


def test_it_is_said_without_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    renew(new_study(), CHANGED)
    assert "The study was started with other labels. It held no result" in caplog.text
    assert "Give those." not in caplog.text


def test_results_are_not_thrown_away() -> None:
    study = new_study()
    study.add_trial(optuna.trial.create_trial(value=0.5))
    with pytest.raises(ChangedError) as raised:
        renew(study, CHANGED)
    assert raised.value is CHANGED
    assert len(study.trials) == 1


def test_a_study_that_is_worked_on_is_left() -> None:
    study = new_study()
    trial = study.ask()
    storage, _ = _optuna.study_identity(study)
    worker = {"number": trial.number, "worker": this_worker()}
    storage.set_trial_system_attr(trial._trial_id, record.WORKER, worker)
    with pytest.raises(ChangedEvaluationError, match="Its trial 0 is running on the machine"):
        renew(study, ChangedEvaluationError(str(CHANGED)))
    assert number_of(optuna.load_study(study_name="mine", storage=storage)) == number_of(study)


def test_another_worker_does_it_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study()
    other = optuna.load_study(study_name="mine", storage=_optuna.study_identity(study)[0])
    renewed: list[optuna.Study] = []

    def looked(study: optuna.Study) -> list[FrozenTrial]:
        monkeypatch.undo()
        renewed.append(renew(other, CHANGED))
        renewed[0].add_trial(optuna.trial.create_trial(value=0.5))
        return []

    monkeypatch.setattr(renewal, "running_now", looked)
    found = renew(study, CHANGED)
    assert number_of(found) == number_of(renewed[0])
    assert len(found.trials) == 1
