"""What a study keeps of single samples comes back as it was."""

from __future__ import annotations

from dataclasses import replace
import json
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import optuna
import pytest

from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.population_record import read_population
from optuna_quant.study.population_record import write_population
from optuna_quant.study.sample_record import read_scores
from optuna_quant.study.sample_record import samples_of
from optuna_quant.study.sample_record import write_scores
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import RunningTrialWriter


def kept(scores: np.ndarray, decision: str = "open") -> dict[str, Any]:
    """The attributes of a trial with these scores, as a storage gives them back."""
    attrs: dict[str, Any] = {}
    write_scores(
        lambda name, value: attrs.update({name: json.dumps(value)}), scores, decision=decision
    )
    return {name: json.loads(value) for name, value in attrs.items()}


SCORES = st.one_of(
    st.lists(st.sampled_from([0.0, 1.0]), max_size=100),
    st.lists(st.sampled_from([-2.5, 0.1]), max_size=100),
    st.lists(st.floats(-1e6, 1e6), max_size=100),
)


@given(SCORES)
def test_scores_come_back(scores: list[float]) -> None:
    given_scores = np.array(scores, dtype=np.float64)
    attrs = kept(given_scores)
    found = read_scores(attrs)
    np.testing.assert_array_equal(found, given_scores)
    assert found.dtype == np.float64
    assert found.flags.writeable
    assert samples_of(attrs) == len(scores)


@pytest.mark.parametrize("dtype", [np.float32, bool, np.int64])
def test_scores_of_other_types_come_back(dtype: type) -> None:
    scores = np.array([0, 1, 1, 0, 1]).astype(dtype)
    np.testing.assert_array_equal(read_scores(kept(scores)), scores.astype(np.float64))


def test_float32_scores_keep_their_values() -> None:
    scores = np.random.default_rng(0).random(50).astype(np.float32)
    np.testing.assert_array_equal(read_scores(kept(scores)), scores.astype(np.float64))


def test_a_trial_without_scores_has_none() -> None:
    assert samples_of({}) is None
    assert len(read_scores({})) == 0


def test_right_and_wrong_take_a_bit_each() -> None:
    scores = (np.random.default_rng(0).random(50_000) < 0.5).astype(float)
    attrs = kept(scores)
    assert len(json.dumps(attrs)) < 50_000 / 8 * 4 / 3 + 500
    np.testing.assert_array_equal(read_scores(attrs), scores)


def test_long_scores_are_in_pieces_that_every_storage_takes() -> None:
    scores = np.random.default_rng(0).random(50_000)
    attrs = kept(scores)
    assert len(attrs) > 2
    assert max(len(json.dumps(value)) for value in attrs.values()) < 65_535
    np.testing.assert_array_equal(read_scores(attrs), scores)


def test_the_head_is_written_last() -> None:
    names: list[str] = []
    write_scores(lambda name, _: names.append(name), np.arange(9.0), decision="fails")
    assert names[-1] == record.SCORES
    assert kept(np.arange(9.0), "fails")[record.SCORES]["decision"] == "fails"


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_scores_come_back_from_a_storage(storage: str, tmp_path: Any) -> None:
    url = None if storage == "memory" else f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url)
    trial = study.ask()
    scores = np.random.default_rng(0).random(6000)
    write_scores(
        lambda name, value: study._storage.set_trial_system_attr(trial._trial_id, name, value),
        scores,
        decision="open",
    )
    study.tell(trial, 0.0)
    np.testing.assert_array_equal(read_scores(study.trials[0].system_attrs), scores)


def test_scores_are_copied_to_another_trial() -> None:
    study = optuna.create_study()
    scores = np.random.default_rng(0).random(6000)
    one, other, empty = study.ask(), study.ask(), study.ask()
    write_scores(
        lambda name, value: study._storage.set_trial_system_attr(one._trial_id, name, value),
        scores,
        decision="open",
    )
    for trial in (one, other, empty):
        if trial is other:
            TrialView(study.trials[one.number]).copy_scores(RunningTrialWriter(other).system_attr)
        study.tell(trial, 0.0)
    np.testing.assert_array_equal(read_scores(study.trials[other.number].system_attrs), scores)
    assert samples_of(study.trials[empty.number].system_attrs) is None


@given(
    st.lists(st.tuples(st.integers(0, 255), st.floats(0, 1)), min_size=1, max_size=60),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.0, 1.0), (-1.0, 3.0)]),
    st.booleans(),
    st.sampled_from(["paired", "unpaired", "exact"]),
)
@settings(max_examples=examples(30))
def test_a_population_comes_back(
    samples: list[tuple[int, float]],
    seed: int,
    bounds: tuple[float, float],
    higher_is_better: bool,
    method: str,
) -> None:
    study = optuna.create_study()
    levels = np.array([level for level, _ in samples], dtype=np.uint8)
    population = Population(
        order=SampleOrder.draw(levels, seed=seed),
        baseline=np.array([score for _, score in samples]),
        bounds=bounds,
        higher_is_better=higher_is_better,
        error_probability=0.01,
        method=method,
    )
    assert read_population(study) is None
    key = write_population(study, population, levels=levels, seed=seed)
    assert read_population(study) is None  # It counts once the baseline refers to it.
    set_baseline(study, Baseline(0.5, 0, key))
    found = read_population(study)
    assert found is not None
    np.testing.assert_array_equal(found.order.indices, population.order.indices)
    np.testing.assert_array_equal(found.order.weights, population.order.weights)
    np.testing.assert_array_equal(found.baseline, population.baseline)
    for name in ("bounds", "higher_is_better", "error_probability", "method"):
        assert getattr(found, name) == getattr(population, name)


def test_another_order_of_the_samples_is_refused() -> None:
    study = optuna.create_study(study_name="mine")
    levels = np.zeros(20, dtype=np.uint8)
    population = Population(
        order=SampleOrder.draw(levels, seed=1), baseline=np.ones(20), bounds=(0.0, 1.0)
    )
    other = replace(population, order=SampleOrder.draw(levels, seed=2))
    key = write_population(study, other, levels=levels, seed=1)
    set_baseline(study, Baseline(1.0, 0, key))
    with pytest.raises(ValueError, match=r"'mine' was started with another version of numpy"):
        read_population(study)


def test_a_large_population_fits_into_a_storage(tmp_path: Any) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, 50_000).astype(np.uint8)
    baseline = rng.random(50_000)
    population = Population(
        order=SampleOrder.draw(levels, seed=3), baseline=baseline, bounds=(0.0, 1.0)
    )
    key = write_population(study, population, levels=levels, seed=3)
    set_baseline(study, Baseline(0.5, 0, key))
    again = optuna.load_study(study_name=study.study_name, storage=study._storage)
    found = read_population(again)
    assert found is not None
    np.testing.assert_array_equal(found.baseline, baseline)
    assert found.order.digest == population.order.digest


def test_bytes_come_back_under_their_name() -> None:
    study = optuna.create_study()
    write_bytes(study, "one", bytes(range(256)))
    assert read_bytes(study, "one") == bytes(range(256))
    assert read_bytes(study, "other") is None


def test_of_two_baselines_the_one_that_is_kept_has_its_own_samples() -> None:
    study = optuna.create_study()
    levels = np.zeros(20, dtype=np.uint8)
    keys = []
    for seed in (1, 2):
        population = Population(
            order=SampleOrder.draw(levels, seed=seed), baseline=np.ones(20), bounds=(0.0, 1.0)
        )
        keys.append(write_population(study, population, levels=levels, seed=seed))
        if seed == 1:
            set_baseline(study, Baseline(1.0, 0, keys[0]))
    assert keys[0] != keys[1]
    found = read_population(study)
    assert found is not None
    assert found.key == keys[0]
    assert found.order.digest == SampleOrder.draw(levels, seed=1).digest
