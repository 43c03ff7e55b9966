"""Sampler, objective, pruner and exit policy of one search judge by one criterion."""

from __future__ import annotations

from typing import Any

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
import optuna
import pytest

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.criteria import check_one_criterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline


STRICT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
LOOSE = AccuracyCriterion(criterion="absolute", tolerable_loss=0.5)
DAMAGE = {"a": 0.2, "b": 0.01}


def search(
    *,
    objective: AccuracyCriterion = STRICT,
    policy: AccuracyCriterion = STRICT,
    sampler: Any = STRICT,
    pruner: AccuracyCriterion | None = None,
    study: optuna.Study | None = None,
) -> tuple[optuna.Study, CountingEvaluation, Exception | None]:
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    if study is None:
        study = optuna.create_study(direction="maximize")
    study.sampler = (
        sampler
        if isinstance(sampler, optuna.samplers.BaseSampler)
        else BasicQuantSampler(space, criterion=sampler)
    )
    if pruner is not None:
        study.pruner = AccuracyPruner(pruner)
    counting = CountingEvaluation()
    error = None
    try:
        study.optimize(
            QuantObjective(backend, space, counting, objective),
            n_trials=20,
            callbacks=[ExitPolicy(policy, timeout=None)],
        )
    except ValueError as raised:
        error = raised
    return study, counting, error


@pytest.mark.parametrize(
    ("given", "first", "second", "evaluated"),
    [
        ({"sampler": LOOSE}, "objective", "sampler", 0),
        ({"pruner": LOOSE}, "sampler", "pruner", 0),
        ({"pruner": LOOSE, "sampler": None}, "objective", "pruner", 0),
        ({"sampler": LOOSE, "policy": LOOSE}, "objective", "sampler", 0),
        ({"objective": LOOSE}, "objective", "sampler", 0),
        # The callback is first called after the FP32 model.
        ({"policy": LOOSE}, "exit policy", "objective", 1),
        ({"policy": LOOSE, "sampler": None}, "exit policy", "objective", 1),
        ({"objective": LOOSE, "sampler": None}, "exit policy", "objective", 1),
    ],
)
def test_parts_that_differ_are_refused_by_name(
    given: dict[str, Any], first: str, second: str, evaluated: int
) -> None:
    study, counting, error = search(**given)
    text = str(error)
    assert f"The {first} uses another criterion than the {second}: " in text
    assert "at most 0.1 absolute loss" in text
    assert "at most 0.5 absolute loss" in text
    assert "Give both the same AccuracyCriterion." in text
    assert len(counting.seen) == counting.fp32_count == evaluated
    assert not any(record.MET in trial.user_attrs for trial in study.trials)


def test_a_foreign_sampler_has_none() -> None:
    study, _, error = search(sampler=optuna.samplers.RandomSampler(seed=1))
    assert error is None
    assert get_baseline(study) is not None


def test_an_exit_policy_is_asked_before_the_first_trial() -> None:
    space = FakeBackend(DAMAGE).tuning_space()
    sampler = BasicQuantSampler(space, criterion=STRICT)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.raises(ValueError, match="exit policy uses another criterion than the samp"):
        ExitPolicy(LOOSE).decide(study)
    study.pruner = AccuracyPruner(LOOSE)
    with pytest.raises(ValueError, match="criterion than the pruner"):
        ExitPolicy(STRICT).decide(study)


def test_all_parts_may_have_another_one_than_the_study_was_started_with() -> None:
    study, _, error = search()
    assert error is None
    before = len(study.trials)
    met = {trial.number: trial.user_attrs.get(record.MET) for trial in study.trials}
    study, _, error = search(objective=LOOSE, policy=LOOSE, sampler=LOOSE, study=study)
    assert error is None
    assert {number: met[number] for number in range(before)} == met
    # One part of it that is left behind is found out.
    random = optuna.samplers.RandomSampler(seed=1)
    study, _, error = search(policy=LOOSE, sampler=random, study=study)
    assert "exit policy uses another criterion than the objective" in str(error)


def test_what_is_no_criterion_does_not_count() -> None:
    check_one_criterion(sampler=None, pruner=3, objective=STRICT, exit_policy=STRICT)
