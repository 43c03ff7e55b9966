"""The one reading of a trial."""

from __future__ import annotations

import ast
from pathlib import Path
import re

import numpy as np
import optuna
from optuna.trial import TrialState
from optuna.trial import create_trial
from parsed import nodes_of
from study.made_trials import claimed
from study.made_trials import trial_with

import optuna_quant
from optuna_quant.sequential import Decision
from optuna_quant.study import record
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.sample_record import write_scores
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import full_scores
from optuna_quant.study.trial_writer import RunningTrialWriter


PACKAGE = Path(optuna_quant.__file__).parent
NAMES = ("user_attrs", "system_attrs")
ASKED = re.compile("|".join(NAMES))

READERS = {
    "study/trial_view.py": "the view itself",
    "study/started_trial.py": "its part about a trial that has only started",
    "study/record_check.py": "checks the kinds of values, which the view takes for granted",
    "pruners/_accuracy.py": "adds the evidence to the trial that Optuna holds, and reads nothing",
    "dashboard/shown_storage.py": "passes all of them on",
}
"""The modules that ask a trial for its attributes, and why each does so itself."""


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
    if ASKED.search(path.read_text(encoding="utf-8")) is None:
        return False  # Most modules do not, and to parse them takes long.
    for node in nodes_of(path):
        if not isinstance(node, ast.Attribute) or node.attr not in NAMES:
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
