"""One evaluation serves all trials of a model; a later trial waits for the earlier one."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.distributions import CategoricalDistribution
import pytest

from optuna_quant.evaluation.model_reuse import Duplicate
from optuna_quant.evaluation.model_reuse import ModelReuse
from optuna_quant.evaluation.trial_record import TrialRecord
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


NAME = "quant.op:a"
LABELS = ("int8", "fp32")


class _Waiting:
    """Waits for what started, and does something meanwhile."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []
        self.pauses = 0
        self._meanwhile = meanwhile

    def is_for(self, started: list, silent: list) -> bool:
        self.asked.append(([t.number for t in started], [t.number for t in silent]))
        return bool(started) and self.pauses < 3

    def pause(self) -> None:
        self.pauses += 1
        self._meanwhile()


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def _named(trial: optuna.Trial, fingerprint: str | None) -> optuna.Trial:
    trial.set_user_attr(record.FALLBACK_OPS, 0)
    if fingerprint is not None:
        trial.set_user_attr(record.FINGERPRINT, fingerprint)
    return trial


def asked(study: optuna.Study, fingerprint: str | None = None) -> optuna.Trial:
    """A trial that runs and has started."""
    return _named(study.ask(), fingerprint)


def test_the_same_parameters_need_no_model(study: optuna.Study) -> None:
    for label in LABELS:
        study.enqueue_trial({NAME: label})
    first, second = (study.ask({NAME: CategoricalDistribution(LABELS)}) for _ in LABELS)
    study.tell(first, 0.7)
    study.enqueue_trial({NAME: LABELS[0]})
    same = study.ask({NAME: CategoricalDistribution(LABELS)})
    assert ModelReuse().same_parameters(same) == Duplicate(0, 0.7)
    assert ModelReuse().same_parameters(second) is None


def test_a_complete_trial_of_the_same_model_is_found(study: optuna.Study) -> None:
    study.tell(asked(study, "other"), 0.5)
    study.tell(asked(study, "same"), 0.6)
    waiting = _Waiting()
    found = ModelReuse().same_model(asked(study), "same", waiting)
    assert found == Duplicate(1, 0.6)
    assert waiting.asked == []


def test_an_earlier_trial_of_the_same_model_is_waited_for(study: optuna.Study) -> None:
    earlier, trial = asked(study, "same"), asked(study)
    waiting = _Waiting(lambda: study.tell(earlier, 0.6))
    assert ModelReuse().same_model(trial, "same", waiting) == Duplicate(0, 0.6)
    assert waiting.pauses == 1


def test_only_what_may_become_the_same_is_waited_for(study: optuna.Study) -> None:
    asked(study, "same")
    asked(study, "other")
    asked(study)  # It is building what may be the same.
    study.ask()  # It shows no sign.
    trial = asked(study)
    asked(study, "same")  # A later one: that waits for this.
    waiting = _Waiting()
    assert ModelReuse().same_model(trial, "same", waiting) is None
    assert waiting.asked[0] == ([0, 2], [3])


def test_what_this_process_knows_already_is_taken(study: optuna.Study) -> None:
    reuse = ModelReuse()
    earlier, trial = asked(study, "same"), asked(study)
    reuse.keep(earlier, 0.8)
    assert reuse.same_model(trial, "same", _Waiting()) == Duplicate(0, 0.8)
    reuse.forget(optuna.create_study(study_name="another"))
    assert reuse.same_model(trial, "same", _Waiting()) == Duplicate(0, 0.8)
    reuse.forget(study)
    assert reuse.same_model(trial, "same", _Waiting()) is None


def test_a_trial_takes_over_all_that_was_found(study: optuna.Study) -> None:
    earlier = asked(study, "same")
    earlier.set_user_attr(record.MODEL_BYTES, 123)
    earlier.set_user_attr(record.DEPENDS_ON_BATCH, True)
    study.tell(earlier, 0.6)
    trial = asked(study)
    written = TrialRecord(trial, QuantConfig({}), None)
    assert ModelReuse().take_over(trial, written, Duplicate(0, 0.6)) == 0.6
    view = TrialView.of_running(trial)
    assert (view.source, view.fingerprint, view.model_bytes) == (0, "same", 123)
    assert view.depends_on_batch


def test_the_source_is_the_trial_that_was_evaluated(study: optuna.Study) -> None:
    study.tell(asked(study, "same"), 0.6)
    trials = [asked(study, "same"), asked(study, "same")]
    for before, trial in enumerate(trials):
        written = TrialRecord(trial, QuantConfig({}), None)
        study.tell(trial, ModelReuse().take_over(trial, written, Duplicate(before, 0.6)))
    assert [TrialView(trial).source for trial in study.trials] == [0, 0, 0]
