"""The one writing of what a trial is worth: constraints, loss and evidence agree."""

from __future__ import annotations

from dataclasses import asdict

import optuna
import pytest

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.sequential import Decision
from optuna_quant.study import record
from optuna_quant.study.evidence import COMPLETE
from optuna_quant.study.evidence import Evidence
from optuna_quant.study.judgement import Judgement
from optuna_quant.study.judgement import judge
from optuna_quant.study.judgement import judge_by_samples
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import RunningTrialWriter
from optuna_quant.study.trial_writer import StoredTrialWriter


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


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
