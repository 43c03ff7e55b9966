"""A record that was edited or damaged is refused by name, or does no harm."""

from __future__ import annotations

import copy
from typing import Any

from effort import examples
from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import optuna
import pytest
from sample_models import SampleScores

from optuna_quant import _optuna
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.sequential import EarlyStopping
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.errors import DamagedRecordError
from optuna_quant.study.record_check import check_record


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.3, "b": 0.02, "c": 0.0}
SPACE = FakeBackend(DAMAGE).tuning_space()


def search(study: optuna.Study, *, samples: bool) -> None:
    study.sampler = BasicQuantSampler(SPACE, criterion=CRITERION)
    stopping = EarlyStopping() if samples else None
    evaluate: Any = SampleScores(DAMAGE, samples=300) if samples else CountingEvaluation()
    objective = QuantObjective(FakeBackend(DAMAGE), SPACE, evaluate, CRITERION, stopping=stopping)
    study.optimize(objective, callbacks=[ExitPolicy(CRITERION, timeout=None)])


# What searches with a hold-out set, with dynamic quantization and with failures write down.
SETTINGS = {
    record.HOLDOUT_SPLIT: {"fraction": 0.3, "seed": 0, "samples": 300, "digest": "0f"},
    record.DYNAMIC_BATCH_SIZE: 1,
    record.FAILURES_FROM: 0,
}


def whole(samples: bool) -> optuna.Study:
    study = optuna.create_study(study_name="mine", direction="maximize")
    for name, value in SETTINGS.items():
        _optuna.set_study_system_attr(study, name, value)
    search(study, samples=samples)
    return study


@pytest.fixture(scope="module")
def recorded() -> dict[bool, tuple[optuna.Study, list[tuple[int | None, str, str]]]]:
    """Whole studies, and the attributes of ours in each: (trial, kind, name)."""
    found = {}
    for samples in (False, True):
        study = whole(samples)
        places: list[tuple[int | None, str, str]] = []
        places += [(None, "user", name) for name in study.user_attrs]
        places += [(None, "system", name) for name in _optuna.study_system_attrs(study)]
        for trial in study.trials:
            places += [(trial.number, "user", name) for name in trial.user_attrs]
            places += [(trial.number, "system", name) for name in trial.system_attrs]
        found[samples] = study, places
    return found


def damage(study: optuna.Study, place: tuple[int | None, str, str], value: Any) -> optuna.Study:
    """A copy of an in-memory study, one of whose attributes is another value."""
    changed = copy.deepcopy(study)
    inner = changed._storage._studies[changed._study_id]  # type: ignore[attr-defined]
    number, kind, name = place
    owner = inner if number is None else inner.trials[number]
    getattr(owner, f"{kind}_attrs")[name] = value
    return changed


def value_at(study: optuna.Study, place: tuple[int | None, str, str]) -> Any:
    number, kind, name = place
    owner = study._storage._studies[study._study_id]  # type: ignore[attr-defined]
    owner = owner if number is None else owner.trials[number]
    return getattr(owner, f"{kind}_attrs")[name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """Another value: anything, or the same with a part of it changed."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: draw(edited(value[name]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(edited(value[place])), *value[place + 1 :]]
    if isinstance(value, str) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return value[:place] + draw(st.characters(codec="ascii")) + value[place + 1 :]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw(st.booleans()):
        return value + draw(st.sampled_from([-1, 1, 0.125, -0.25]))
    return draw(JSON)


@pytest.mark.parametrize("samples", [False, True])
@settings(
    deadline=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_one_damaged_attribute_is_refused_or_does_no_harm(
    recorded: Any, samples: bool, data: st.DataObject
) -> None:
    study, places = recorded[samples]
    place = data.draw(st.sampled_from(places))
    changed = damage(study, place, data.draw(edited(value_at(study, place))))
    before = best_met_trial(study, CRITERION)
    assert before is not None
    try:
        search(changed, samples=samples)
    except DamagedRecordError as error:
        assert "'mine'" in str(error)
        assert error.attribute in str(error)
        assert "another study name or storage" in str(error)
        return
    except ValueError as error:
        # Whole values that are those of another study.
        assert "study 'mine' " in str(error)
        assert "another study name" in str(error) or "start a new study" in str(error)
        return
    found = best_met_trial(changed, CRITERION)
    assert found is not None
    assert SPACE.config_from_params(found.params) == SPACE.config_from_params(before.params)


def test_a_whole_record_is_accepted(recorded: Any) -> None:
    for study, _ in recorded.values():
        check_record(study)


@pytest.mark.parametrize(
    ("samples", "number", "kind", "name", "edit", "pattern"),
    [
        (False, None, "user", record.BASELINE, {"value": 0.5}, "does not agree with its digest"),
        (
            False,
            None,
            "user",
            record.BASELINE,
            {"value": float("nan")},
            "must hold a finite value",
        ),
        (False, None, "user", record.BASELINE, {"value": "0.9"}, "must hold a finite value"),
        (False, None, "user", record.BASELINE, {"trial": 99}, "names trial 99, but there are"),
        (
            False,
            None,
            "user",
            record.BASELINE,
            {"value": 0.5, "digest": None},
            "trial 0, which me",
        ),
        (True, None, "user", record.BASELINE, {"value": 0.5, "digest": None}, "have the mean"),
        (True, 0, "user", record.MET, True, "trial 0"),
        (False, 1, "user", record.MET, True, "'met' of trial 1 is True, but the constraint"),
        (False, 1, "user", record.FALLBACK_OPS, -1, "'fallback_ops' of trial 1 is -1"),
        (
            True,
            1,
            "system",
            record.SCORES,
            {"samples": 7},
            "of trial 1 or one of its pieces is no",
        ),
        (True, 1, "system", f"{record.SCORES}:0", "eJw=", "of trial 1 or one of its pieces is no"),
        (
            False,
            1,
            "system",
            record.CLAIM,
            {"fidelity": "far"},
            "'optuna_quant:claim' of trial 1 is",
        ),
        (False, None, "system", record.HOLDOUT_SPLIT, {"fraction": "x"}, "optuna_quant:holdout"),
        (False, None, "system", record.DYNAMIC_BATCH_SIZE, -1, "dynamic_batch_size' is -1"),
        (False, None, "system", record.FAILURES_FROM, "no", "failures_from' is 'no'"),
    ],
)
def test_damage_is_named(
    recorded: Any,
    samples: bool,
    number: int | None,
    kind: str,
    name: str,
    edit: Any,
    pattern: str,
) -> None:
    study, _ = recorded[samples]
    if isinstance(edit, dict):
        edit = {**value_at(study, (number, kind, name)), **edit}
    changed = damage(study, (number, kind, name), edit)
    before = len(changed.trials)
    with pytest.raises(DamagedRecordError, match="The record of the study 'mine' is dam") as error:
        search(changed, samples=samples)
    assert pattern in str(error.value)
    done = [t for t in changed.trials[before:] if t.state == optuna.trial.TrialState.COMPLETE]
    assert done == []


def test_samples_that_were_exchanged_are_named(recorded: Any) -> None:
    study, places = recorded[True]
    pieces = [p for p in places if p[0] is None and ":population:" in p[2] and p[2].endswith(":0")]
    (place,) = pieces
    with pytest.raises(
        DamagedRecordError, match=r"'optuna_quant:population:.*is not what was wri"
    ):
        search(damage(study, place, "eJw="), samples=True)


def test_record_of_an_earlier_version_is_accepted(recorded: Any) -> None:
    """Without digests."""
    for samples, (study, places) in recorded.items():
        changed = copy.deepcopy(study)
        for place in places:
            value = value_at(study, place)
            if place[2] in (record.BASELINE, record.SCORES):
                bare = {key: each for key, each in value.items() if key != "digest"}
                changed = damage(changed, place, bare)
        check_record(changed)
        assert np.isfinite(get_baseline(changed).value)  # type: ignore[union-attr]
        search(changed, samples=samples)
