"""The accuracy pruner: exact, never wrong; by a sequential test, early and seldom wrong."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
import copy
import json
import math
import multiprocessing
from pathlib import Path
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import optuna
from optuna.trial import TrialState
import pytest
from spaces import make_space

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def run(
    right: dict[tuple[str, ...], np.ndarray],
    criterion: AccuracyCriterion = CRITERION,
    *,
    report_baseline: bool = True,
) -> optuna.Study:
    """A study of two ops; the scores of each configuration's samples, by its fallback ops."""
    space = make_space(2)
    study = optuna.create_study(
        direction=criterion.direction,
        sampler=ExhaustiveQuantSampler(space, fallback=True),
        pruner=AccuracyPruner(criterion, method="exact"),  # The wrong ones come first.
    )

    def objective(trial: optuna.Trial) -> float:
        config: QuantConfig = space.suggest(trial)
        scores = right[config.fallback_ops]
        for seen in range(10, len(scores) + 1, 10):
            if report_baseline or config.quantized_ops:
                trial.report(float(scores[:seen].mean()), step=seen)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(scores.mean())

    study.optimize(objective, n_trials=4)
    return study


def scores(wrong_first: int) -> np.ndarray:
    found = np.ones(100)
    found[:wrong_first] = 0
    return found


RIGHT = {
    ("op0", "op1"): scores(0),
    (): scores(50),
    ("op0",): scores(10),
    ("op1",): scores(11),
}


def test_prunes_as_soon_as_the_rest_cannot_help() -> None:
    study = run(RIGHT)
    states = {t.value: (t.state, t.last_step) for t in study.trials}
    assert study.trials[0].state == TrialState.COMPLETE
    # 11 wrong are too many; that is known after 20 samples, the first look behind the 11th.
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert [t.last_step for t in pruned] == [20, 20], states


def test_equality_is_not_pruned() -> None:
    study = run(RIGHT)
    complete = [t.value for t in study.trials if t.state == TrialState.COMPLETE]
    assert sorted(complete) == [0.9, 1.0]


def test_lower_is_better() -> None:
    criterion = AccuracyCriterion(higher_is_better=False, criterion="absolute", tolerable_loss=0.1)
    study = run({ops: 1 - found for ops, found in RIGHT.items()}, criterion)
    assert [t.state for t in study.trials].count(TrialState.PRUNED) == 2


def test_without_the_size_of_the_data_nothing_is_pruned() -> None:
    study = run(RIGHT, report_baseline=False)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bad_bounds(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="two different finite numbers"):
        AccuracyPruner(CRITERION, bounds=bounds)


# By a sequential test.

SIZE = 2000
BATCH = 20
ABSOLUTE = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)
LOWER = AccuracyCriterion(higher_is_better=False, criterion="relative", tolerable_loss=0.1)


def wrong(share: float, size: int = SIZE) -> np.ndarray:
    """Scores that are 0 for a share of the samples, the same ones as for a lower share."""
    found = np.ones(size)
    found[np.random.default_rng(0).permutation(size)[: round(share * size)]] = 0
    return found


def means(scores: np.ndarray, batch: int = BATCH) -> dict[int, float]:
    steps = [*range(batch, len(scores), batch), len(scores)]
    return {step: float(scores[:step].mean()) for step in steps}


def study_with_baseline(
    pruner: AccuracyPruner,
    reports: dict[int, float],
    *,
    storage: str | None = None,
    direction: str = "maximize",
) -> optuna.Study:
    study = optuna.create_study(direction=direction, storage=storage, pruner=pruner)
    trial = study.ask()
    value = reports[max(reports)]
    for step, mean in reports.items():
        trial.report(mean, step)
        assert not trial.should_prune()
    study.tell(trial, value)
    set_baseline(study, Baseline(value, trial.number))
    return study


def evaluate(study: optuna.Study, reports: dict[int, float]) -> int:
    """Report until the pruner has had enough, and say after how many samples."""
    trial = study.ask()
    for step, mean in reports.items():
        trial.report(mean, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return step
    study.tell(trial, mean)
    return step


@pytest.fixture
def storage(kind: str, tmp_path: Path) -> Any:
    if kind == "memory":
        return None
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    return optuna.storages.JournalStorage(backend)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("memory", "paired"),
        ("memory", "unpaired"),
        ("memory", "exact"),
        ("sqlite", "paired"),
        ("journal", "exact"),
    ],
)
def test_prunes_and_says_why(kind: str, method: str, storage: Any) -> None:
    batch = BATCH if kind == "memory" else 5 * BATCH
    pruner = AccuracyPruner(ABSOLUTE, method=method)
    study = study_with_baseline(pruner, means(wrong(0.1), batch), storage=storage)
    seen = evaluate(study, means(wrong(0.3), batch))
    if method == "exact":
        assert 600 < seen < SIZE
    else:
        assert seen < 300
    assert evaluate(study, means(wrong(0.11), batch)) == SIZE  # Just good enough.
    pruned = optuna.load_study(study_name=study.study_name, storage=study._storage).trials[1]
    assert pruned.state == TrialState.PRUNED
    evidence = pruned.user_attrs["evidence"]
    assert json.loads(json.dumps(evidence)) == evidence
    low, high = evidence["bounds"]
    assert low <= 0.7 <= high < 0.89
    assert evidence["estimate"] == pruned.value
    assert (evidence["samples"], evidence["of"]) == (seen, SIZE)
    assert (evidence["decision"], evidence["method"]) == ("fails", method)
    assert evidence["error_probability"] == (0 if method == "exact" else 0.001)
    said = "Even if each" if method == "exact" else "With error probability 0.001, the metric over"
    assert evidence["reason"].startswith(said)
    assert evidence["reason"].endswith("the criterion needs at least 0.89.")
    assert all("evidence" not in study.trials[i].user_attrs for i in (0, 2))


@pytest.mark.parametrize("method", ["paired", "unpaired", "exact"])
def test_losses_on_another_scale(method: str) -> None:
    def reports(share: float) -> dict[int, float]:
        return means(40 * (1 - wrong(share)) - 10)

    pruner = AccuracyPruner(LOWER, method=method, bounds=(30, -10))
    study = study_with_baseline(pruner, reports(0.5), direction="minimize")
    # The baseline is 10, and 11 is good enough.
    assert evaluate(study, reports(0.525)) == SIZE
    seen = evaluate(study, reports(0.8))
    assert seen < (SIZE if method == "exact" else 400)
    evidence = study.trials[2].user_attrs["evidence"]
    low, high = evidence["bounds"]
    assert 11 < low <= 22 <= high <= 30
    assert evidence["reason"].endswith("the criterion needs at most 11.")


def test_pairing_decides_sooner_where_scores_are_alike() -> None:
    baseline = np.random.default_rng(1).random(400)
    seen = {}
    for method in ("paired", "unpaired"):
        study = study_with_baseline(AccuracyPruner(ABSOLUTE, method=method), means(baseline, 1))
        seen[method] = evaluate(study, means(np.maximum(baseline - 0.1, 0), 1))
    assert seen["paired"] < seen["unpaired"]


def test_written_once() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1)))
    trial = study.ask()
    decided = []
    for step, mean in list(means(wrong(0.3)).items())[:40]:
        trial.report(mean, step)
        if trial.should_prune():  # Which the objective may ignore.
            decided.append(step)
            written = study.trials[1].user_attrs["evidence"]
            assert written["samples"] == decided[0]
    assert decided == list(range(decided[0], 801, BATCH))


def test_the_baseline_is_never_pruned() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.3)))
    set_baseline(study, Baseline(0.9, 0))
    assert not study.pruner.prune(study, study.trials[0])


@given(st.data())
def test_the_decision_is_in_the_record_alone(data: st.DataObject) -> None:
    """Another worker's pruner, or one that has looked only sometimes, says the same."""
    batch = data.draw(st.sampled_from([10, 20, 25]))
    share = data.draw(st.sampled_from([0.15, 0.2, 0.3]))
    looks = data.draw(st.lists(st.booleans(), min_size=40, max_size=40))
    pruner = AccuracyPruner(ABSOLUTE)
    study = study_with_baseline(pruner, means(wrong(0.1, 400)))
    trial = study.ask()
    for (step, mean), look in zip(means(wrong(share, 400), batch).items(), looks, strict=False):
        trial.report(mean, step)
        frozen = study.trials[1]
        if look:
            assert pruner.prune(study, frozen) == AccuracyPruner(ABSOLUTE).prune(study, frozen)


def test_reports_in_any_order_and_not_numbers() -> None:
    pruner = AccuracyPruner(ABSOLUTE)
    study = study_with_baseline(pruner, {**means(wrong(0.1)), 50: math.nan})
    trial = study.ask()
    reports = list(means(wrong(0.3)).items())[:20]
    for step, mean in reports[::2] + reports[1::2]:
        trial.report(mean, step)
        trial.report(math.nan, step + 1)
        assert not trial.should_prune()  # The last report says nothing.
    trial.report(dict(reports)[400], 402)
    frozen = study.trials[1]
    assert pruner.prune(study, frozen)
    assert AccuracyPruner(ABSOLUTE).prune(study, frozen)


def test_more_samples_than_the_baseline_had() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1)))
    trial = study.ask()
    trial.report(0.0, SIZE + 1)
    assert not trial.should_prune()


@pytest.mark.parametrize("steps", [(SIZE,), (7, 19, SIZE)])
def test_no_common_steps(steps: tuple[int, ...]) -> None:
    reports = {step: float(wrong(0.1)[:step].mean()) for step in steps}
    paired = study_with_baseline(AccuracyPruner(ABSOLUTE), reports)
    alone = study_with_baseline(AccuracyPruner(ABSOLUTE, method="unpaired"), reports)
    candidate = means(wrong(0.25))
    assert evaluate(paired, candidate) == evaluate(alone, candidate) < 500


def test_some_common_steps() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1), 40))
    assert evaluate(study, means(wrong(0.3), 25)) < 500


@pytest.mark.parametrize("value", [1.01, -1e-6, math.inf])
def test_out_of_bounds(value: float) -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1)))
    trial = study.ask()
    trial.report(value, 20)
    with pytest.raises(ValueError, match=f"Trial 1 reported {value} at step 20.* 0 and 1: report"):
        trial.should_prune()


def test_a_mean_just_above_the_bounds_is_rounded() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), {20: 1.0, SIZE: 1 + 1e-12})
    assert evaluate(study, {20: 1 + 1e-12, 40: 1 - 1e-12, SIZE: 1 + 1e-12}) == SIZE


def test_a_bad_baseline_is_named() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), {20: 90.0, SIZE: 90.0})
    with pytest.raises(ValueError, match="Trial 0 reported 90"):
        evaluate(study, {20: 0.9, SIZE: 0.9})


def test_means_of_batches_are_found_out() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1)))
    trial = study.ask()
    trial.report(0.95, 200)
    assert not trial.should_prune()
    trial.report(0.8, 220)
    with pytest.raises(ValueError, match="not that of the last batch"):
        trial.should_prune()


def test_several_objectives() -> None:
    pruner = AccuracyPruner(ABSOLUTE)
    study = optuna.create_study(directions=["maximize", "minimize"], pruner=pruner)
    trial = study.ask()
    set_baseline(study, Baseline(0.9, 0))
    assert not pruner.prune(study, study.trials[trial.number])


def test_a_finished_trial_is_judged_but_not_written_to() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1)))
    study.add_trial(optuna.trial.create_trial(value=0.5, intermediate_values=means(wrong(0.5))))
    assert study.pruner.prune(study, study.trials[1])
    assert study.trials[1].user_attrs == {}


def test_a_new_baseline_counts() -> None:
    pruner = AccuracyPruner(ABSOLUTE)
    study = study_with_baseline(pruner, means(wrong(0.3)))
    trial = study.ask()
    for step, mean in list(means(wrong(0.3)).items())[:30]:
        trial.report(mean, step)
        assert not trial.should_prune()
    set_baseline(study, Baseline(0.9, 0))
    assert trial.should_prune()


def test_two_studies_share_a_pruner() -> None:
    pruner = AccuracyPruner(ABSOLUTE)
    good = study_with_baseline(pruner, means(wrong(0.1)))
    bad = study_with_baseline(pruner, means(wrong(0.5)))
    first, second = good.ask(), bad.ask()
    for step, mean in list(means(wrong(0.3)).items())[:30]:
        first.report(mean, step)
        second.report(mean, step)
        decided = first.should_prune()
        assert not second.should_prune()
    assert decided


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies(clone: Any) -> None:
    pruner = AccuracyPruner(ABSOLUTE, error_probability=0.01, method="unpaired", bounds=(0, 2))
    study = study_with_baseline(pruner, means(2 * wrong(0.1)))
    expected = evaluate(study, means(2 * wrong(0.3)))
    study.pruner = clone(pruner)
    assert (study.pruner.error_probability, study.pruner.method) == (0.01, "unpaired")
    assert evaluate(study, means(2 * wrong(0.3))) == expected


def test_many_trials_at_once() -> None:
    """More than the pruner keeps in mind."""
    pruner = AccuracyPruner(ABSOLUTE)
    study = study_with_baseline(pruner, means(wrong(0.1), 100))
    trials = [study.ask() for _ in range(70)]
    for step, mean in list(means(wrong(0.3), 100).items())[:5]:
        for trial in trials:
            trial.report(mean, step)
            trial.should_prune()
    decided = {
        tuple(t.user_attrs.get("evidence", {"bounds": ()})["bounds"]) for t in study.trials[1:]
    }
    assert len(decided) == 1
    assert decided != {()}


def test_threads() -> None:
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), means(wrong(0.1)))
    alone = evaluate(study, means(wrong(0.2)))

    def objective(trial: optuna.Trial) -> float:
        for step, mean in means(wrong(0.2)).items():
            trial.report(mean, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return mean

    study.optimize(objective, n_trials=12, n_jobs=4)
    assert {t.user_attrs["evidence"]["samples"] for t in study.trials[1:]} == {alone}


def work(name: str, storage: str) -> list[int]:
    pruner = AccuracyPruner(ABSOLUTE)
    study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    return [evaluate(study, means(wrong(share), 5 * BATCH)) for share in (0.3, 0.11)]


def test_processes(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    reports = means(wrong(0.1), 5 * BATCH)
    study = study_with_baseline(AccuracyPruner(ABSOLUTE), reports, storage=storage)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(work, [study.study_name] * 2, [storage] * 2))
    assert found[0] == found[1] == work(study.study_name, storage)
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert len({json.dumps(t.user_attrs["evidence"], sort_keys=True) for t in pruned}) == 1


@pytest.mark.parametrize("value", [0, 1, -0.1, math.nan, math.inf])
def test_bad_error_probability(value: float) -> None:
    with pytest.raises(ValueError, match="error_probability must be above 0 and below 1"):
        AccuracyPruner(CRITERION, error_probability=value)


@pytest.mark.parametrize("value", ["0.1", None, True])
def test_error_probability_is_a_number(value: Any) -> None:
    with pytest.raises(TypeError, match="error_probability must be a number"):
        AccuracyPruner(CRITERION, error_probability=value)


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="one of paired, unpaired, exact, but got 'pairwise'"):
        AccuracyPruner(CRITERION, method="pairwise")
