"""The one reading of a trial, and the one writing of its judgement."""

from __future__ import annotations

import ast
from dataclasses import asdict
import math
from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from optuna.trial import create_trial
import pytest

import optuna_quant
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers._engine.trial_history import TrialHistory
from optuna_quant.sequential import Decision
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import ahead_of
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import propose_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.baseline import who_measures
from optuna_quant.study.evidence import COMPLETE
from optuna_quant.study.evidence import Evidence
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.judgement import Judgement
from optuna_quant.study.judgement import judge
from optuna_quant.study.judgement import judge_by_samples
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.sample_record import write_scores
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import full_scores
from optuna_quant.study.trial_writer import RunningTrialWriter
from optuna_quant.study.trial_writer import StoredTrialWriter


PACKAGE = Path(optuna_quant.__file__).parent
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)

READERS = {
    "study/trial_view.py": "the view itself",
    "study/started_trial.py": "its part about a trial that has only started",
    "study/record_check.py": "checks the kinds of values, which the view takes for granted",
    "pruners/_accuracy.py": "adds the evidence to the trial that Optuna holds, and reads nothing",
    "dashboard/shown_storage.py": "passes all of them on",
}
"""The modules that ask a trial for its attributes, and why each does so itself."""


def trial_with(
    *,
    number: int = 0,
    state: TrialState = TrialState.COMPLETE,
    user: dict[str, Any] | None = None,
    system: dict[str, Any] | None = None,
) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        user_attrs=user or {},
        system_attrs=system or {},
    )
    trial.number = number
    return trial


def claimed(number: int, key: str, *, stage: str = "one", state: TrialState) -> FrozenTrial:
    claim = record.Claim(number, key, stage, f"host|{number}")
    return trial_with(number=number, state=state, system={record.CLAIM: claim.to_attr()})


# The view.


def test_a_foreign_trial_says_nothing_of_what_is_ours() -> None:
    view = TrialView(trial_with())
    assert view.claim is None
    assert view.stage is None
    assert view.worker is None
    assert view.fidelity == FULL
    assert view.broken_promises == 0
    assert view.fingerprint is None
    assert view.model == view.number
    assert view.source == view.number
    assert view.met is None
    assert view.violation is None
    assert view.evidence is None
    assert view.samples is None
    assert view.decision is Decision.OPEN
    assert view.is_quantized
    assert not view.is_judged
    assert not view.has_failed_itself
    assert not view.is_enqueued


def test_a_claim_that_was_inherited_is_not_the_trials_own() -> None:
    attrs = claimed(3, "key", state=TrialState.RUNNING).system_attrs
    own = TrialView(trial_with(number=3, system=attrs))
    assert own.has_claimed
    assert (own.stage, own.worker) == ("one", "host|3")
    repeated = TrialView(trial_with(number=4, system=attrs))
    assert not repeated.has_claimed
    assert repeated.claim is None
    assert repeated.stage is None
    assert repeated.worker is None


def test_fallback_ops_are_counted_where_they_were_not_recorded() -> None:
    trial = create_trial(
        value=0.5,
        params={"quant.op:a": "fp32", "quant.op:b": "int8", "lr": 0.1},
        distributions={
            "quant.op:a": optuna.distributions.CategoricalDistribution(["fp32", "int8"]),
            "quant.op:b": optuna.distributions.CategoricalDistribution(["fp32", "int8"]),
            "lr": optuna.distributions.FloatDistribution(0, 1),
        },
    )
    assert TrialView(trial).fallback_ops == 1
    assert not TrialView(trial).is_building
    trial.user_attrs[record.FALLBACK_OPS] = 7
    assert TrialView(trial).fallback_ops == 7
    assert TrialView(trial).is_building


def test_what_was_judged_and_meets_nothing_is_not_quantized() -> None:
    assert not TrialView(trial_with(user={record.LOSS: 0.0})).is_quantized
    assert TrialView(trial_with(user={record.LOSS: 0.0, record.MET: False})).is_quantized
    assert not TrialView(trial_with(system={"constraints:quantized": 1.0})).is_quantized


def test_the_scores_of_a_trial_that_took_over_are_those_of_its_source() -> None:
    study = optuna.create_study()
    source, other = study.ask(), study.ask()
    scores = np.array([0.0, 1.0, 1.0])
    write_scores(RunningTrialWriter(source).system_attr, scores, decision="open")
    other.set_user_attr(record.REUSED_FROM, source.number)
    for trial in (source, other):
        study.tell(trial, 0.5)
    view = TrialView(study.trials[other.number])
    assert len(view.scores) == 0
    found = full_scores(study, view, 3)
    assert found is not None
    np.testing.assert_array_equal(found, scores)
    assert full_scores(study, view, 4) is None


def test_a_running_trial_is_seen_with_what_it_was_enqueued_with() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 1})
    trial = study.ask()
    trial.set_user_attr(record.COSTS, {"ops": 2.0})
    view = TrialView.of_running(trial)
    assert view.is_enqueued
    assert view.fixed_params == {"x": 1}
    assert view.known_params == {"x": 1}
    assert view.costs == {"ops": 2.0}


def reads_attributes(path: Path) -> bool:
    """Whether a module asks a trial for an attribute by its name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute) or node.attr not in ("user_attrs", "system_attrs"):
            continue
        owner = ast.unparse(node.value)
        if "study" not in owner and owner not in ("self", "cls", "attrs", "judgement", "source"):
            return True
    return False


def test_attributes_of_trials_are_read_in_one_place() -> None:
    storages = {path for path in PACKAGE.rglob("*.py") if "storages" in path.parts}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in set(PACKAGE.rglob("*.py")) - storages
        if path.name != "_optuna.py" and reads_attributes(path)
    }
    assert found == READERS.keys()


# Evidence.


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(decision=COMPLETE, samples=10, of=10, evaluated=4),
        Evidence(
            decision="fails",
            samples=4,
            of=10,
            estimate=0.5,
            bounds=(-math.inf, 0.75),
            error_probability=0.0,
            method="exact",
            reason="Cannot meet the criterion.",
        ),
    ],
)
def test_evidence_is_read_as_it_was_written(evidence: Evidence) -> None:
    stored = evidence.to_attr()
    assert None not in stored.values()
    assert math.inf not in stored.get("bounds", [])
    assert Evidence.from_attr(stored) == evidence


def test_the_cost_of_a_trial_is_what_it_has_evaluated_itself() -> None:
    assert Evidence(decision="open", samples=8, of=10, evaluated=3).cost == 0.3
    assert Evidence(decision="open", samples=8, of=10).cost == 0.8


# Judgement.


@pytest.mark.parametrize(("metric", "met"), [(0.85, True), (0.75, False)])
def test_constraints_and_met_agree(metric: float, met: bool) -> None:
    judgement = judge(metric, 0.9, CRITERION, is_quantized=True)
    assert judgement.met is met
    assert (judgement.constraints[record.ACCURACY] <= 0) is met
    assert judgement.constraints[record.QUANTIZED] == 0
    assert judgement.loss == pytest.approx(0.9 - metric)


def test_fp32_meets_nothing_and_is_infeasible() -> None:
    judgement = judge(0.9, 0.9, CRITERION, is_quantized=False)
    assert judgement.constraints[record.QUANTIZED] == 1
    assert record.MET not in judgement.user_attrs
    assert judgement.user_attrs[record.LOSS] == 0


def test_samples_alone_say_at_most_that_the_criterion_is_missed() -> None:
    for decision in (*Decision, COMPLETE):
        evidence = Evidence(decision=str(decision), samples=1, of=2)
        judgement = judge_by_samples(evidence)
        assert judgement.met is (False if decision is Decision.FAILS else None)
        assert not judgement.constraints
        assert record.LOSS not in judgement.user_attrs


def test_what_is_written_is_read() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    judgement = judge(0.85, 0.9, CRITERION, is_quantized=True, judged_by=CRITERION)
    write_judgement(judgement, RunningTrialWriter(trial))
    study.tell(trial, 0.85)
    view = TrialView(study.trials[0])
    assert view.is_judged
    assert view.met is True
    assert view.loss == judgement.loss
    assert view.violation == judgement.violation
    assert view.judged_by == CRITERION
    assert study.trials[0].system_attrs[record.JUDGED_BY] == asdict(CRITERION)


def test_an_objective_without_constraints_is_judged_all_the_same() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    judgement = judge(0.85, 0.9, CRITERION, is_quantized=True)
    write_judgement(judgement, RunningTrialWriter(trial), constrain=False)
    study.tell(trial, 0.85)
    assert study.trials[0].constraints == {}
    assert TrialView(study.trials[0]).met is True


def test_a_constraint_that_is_there_stays() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.set_constraint(record.ACCURACY, 0.25)
    writer = StoredTrialWriter(study, study.get_trials(deepcopy=False)[0])
    write_judgement(Judgement(violation=-1.0, is_quantized=False), writer)
    assert study.trials[0].constraints == {record.ACCURACY: 0.25, record.QUANTIZED: 1.0}


# The baseline.


def test_the_trial_of_the_fp32_model_is_elected_then_the_lowest_number() -> None:
    running = TrialState.RUNNING
    first, fp32 = claimed(0, "a", state=running), claimed(2, "fp32", state=running)
    foreign = trial_with(number=1, state=running)
    trials = [first, foreign, fp32]
    assert ahead_of(2, trials, "fp32") == []
    assert ahead_of(0, trials, "fp32") == [fp32]
    assert ahead_of(1, trials, "fp32") == [first, fp32]
    assert ahead_of(1, [first, foreign], "fp32") == [first]
    assert ahead_of(7, trials, "fp32") == []
    assert who_measures(trials, "fp32") == "host|2"
    assert who_measures([first, foreign], "fp32") is None


def test_a_sampler_goes_by_the_baseline_of_its_study() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0})
    space = backend.tuning_space()
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, criterion=CRITERION)
    )
    set_baseline(study, Baseline(0.95))
    study.optimize(lambda trial: backend.quantize(space.suggest(trial)).accuracy, n_trials=2)
    history = TrialHistory(study, space, max_failures=1, max_deaths=1, criterion=CRITERION)
    history.refresh(study)
    assert study.trials[0].value == 0.9
    assert history.baseline == 0.95
    assert history.threshold == CRITERION.threshold(0.95)
    assert TrialView(study.trials[1]).violation == CRITERION.violation(0.7, 0.95)


def test_the_first_baseline_counts() -> None:
    study = optuna.create_study()
    calls: list[int] = []
    first, second = Baseline(0.9, 0), Baseline(0.8, 1)
    assert propose_baseline(study, first, before=lambda: calls.append(0)) is first
    assert propose_baseline(study, second, before=lambda: calls.append(1)) == first
    assert get_baseline(study) == first
    assert calls == [0]
