"""The surrogate strategy on simulated models: how good its answers are, and what it bears."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
import math
from pathlib import Path
import pickle
import random
import threading
from typing import Any

from fake_backend import FakeBackend
import numpy as np
import optuna
from optuna.trial import TrialState
import pytest
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import answers
from sample_models import backend_of
from sample_models import search
from samplers.simulated import CRITERION
from samplers.simulated import SimulatedModel
from samplers.simulated import additive
from samplers.simulated import cliff
from samplers.simulated import configs_of
from samplers.simulated import met
from samplers.simulated import power
from samplers.simulated import searched
from samplers.simulated import stages_of
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import make_space
from zygote import Zygote

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import StopReason
from optuna_quant.costs import CostTable
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.trial_view import TrialView


BF16 = OpConfig("bf16")
SIZES = [(16, 2), (50, 3), (110, 4)]
# The largest one takes as long as all others, and is in the first tests.
SMALL_SIZES = SIZES[:-1]


def best_cost(model: SimulatedModel, study: optuna.Study, **kwargs: Any) -> float:
    """The cost of the cheapest configuration that was found to meet the criterion."""
    found = met(study, model.space, **kwargs)
    return min((model.table.cost(config) for config in found), default=math.inf)


# What it evaluates.


def test_first_floats_then_the_cheapest_of_all():
    model = SimulatedModel(16, 2)
    study = searched(model.sampler(), model.metric)
    assert stages_of(study)[:2] == ["baseline", "cheapest to start with"]
    first, second = (model.space.config_from_params(t.params) for t in study.trials[:2])
    assert first == model.space.fp32()
    every = [model.space.default().with_fallback(op) for op in model.losses]
    assert model.table.cost(second) <= min(map(model.table.cost, every))
    assert set(stages_of(study)[2:]) == {"cheapest believed to meet"}


def test_a_model_that_bears_the_cheapest_takes_two_evaluations():
    model = SimulatedModel(16, 0, easy=0.002)
    for sampler in (model.sampler(), model.sampler(sensitivity=None)):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(
            lambda trial, sampler=sampler: model.metric(sampler.space.suggest(trial)),
            n_trials=50,
            callbacks=[ExitPolicy(CRITERION)],
        )
        assert len(study.trials) == 2
        assert study.user_attrs[record.STOPPED_BECAUSE]["reason"] == StopReason.MET
        assert sampler.is_exhausted(study)
        assert sampler.is_answer(study, study.trials[1])


def test_sensitivities_are_not_computed_where_they_have_no_use():
    model = SimulatedModel(16, 0, easy=0.002)

    def never(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        raise AssertionError("they have no use")

    assert len(searched(model.sampler(sensitivity=never), model.metric).trials) == 2


@pytest.mark.parametrize(
    ("ops", "hard", "curve"),
    [
        # Each curve and each size are among those that are not slow.
        pytest.param(*size, curve, marks=() if curve is first or not i else pytest.mark.slow)
        for (i, size), first in zip(enumerate(SIZES), (additive, power, cliff), strict=True)
        for curve in (additive, power, cliff)
    ],
)
def test_near_the_cheapest_in_a_handful_of_evaluations(ops: int, hard: int, curve):
    model = SimulatedModel(ops, hard, curve=curve, easy=0.007, seed=3)
    sampler = model.sampler()
    study = searched(sampler, model.metric, most=21)
    assert best_cost(model, study) <= 1.05 * model.least_cost()
    # The answer of the search is the best that it has found.
    answer = [t for t in study.trials if sampler.is_answer(study, t)]
    costs = [model.table.cost(model.space.config_from_params(t.params)) for t in answer]
    assert best_cost(model, study) in costs


@pytest.mark.parametrize(("ops", "hard"), SMALL_SIZES)
def test_where_ops_compete_for_the_tolerance(ops: int, hard: int):
    """What is easy loses twice the tolerance: which ops to give up is a knapsack problem."""
    model = SimulatedModel(ops, hard, easy=0.02, noise=0.7, seed=4)
    study = searched(model.sampler(), model.metric, most=26)
    assert best_cost(model, study) <= 1.2 * model.least_cost()


@pytest.mark.parametrize(
    ("ops", "hard", "seed"), [(*size, seed) for seed, size in enumerate(SIZES)]
)
def test_whenever_it_stops_most_ops_are_quantized(ops: int, hard: int, seed: int):
    model = SimulatedModel(ops, hard, seed=seed)
    study = searched(model.sampler(), model.metric)
    configs = [c for c in configs_of(study, model.space)[:5] if model.loss(c) <= 0.01]
    assert max(len(c.quantized_ops) for c in configs) >= 0.7 * ops


def test_nothing_is_evaluated_twice_and_a_search_that_is_over_stays_over():
    model = SimulatedModel(16, 3, easy=0.02)
    sampler = model.sampler()
    study = searched(sampler, model.metric)
    before = len(study.trials)
    for _ in range(5):
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
    keys = [model.space.config_from_params(t.params).key for t in study.trials]
    assert len(set(keys)) == len(keys)
    assert sampler.is_exhausted(study)
    assert set(stages_of(study)[before:]) == {record.EXHAUSTED_STAGE}


# The record alone decides.


@cache
def model_of_processes() -> SimulatedModel:
    return SimulatedModel(10, 2, easy=0.02)


@cache
def asked_by_one() -> list[str]:
    """What a search of one worker in that model tries."""
    model = model_of_processes()
    return [c.key for c in configs_of(searched(model.sampler(), model.metric), model.space)]


def test_a_rebuilt_sampler_goes_on_as_the_first():
    model, whole = model_of_processes(), asked_by_one()
    assert len(whole) > 4
    one, again = model.sampler(), SimulatedModel(10, 2, easy=0.02)
    study = optuna.create_study(direction="maximize", sampler=one)
    for number in range(len(whole) + 1):
        study.sampler = again.sampler() if number % 2 else pickle.loads(pickle.dumps(one))
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
    for sampler in (again.sampler(), pickle.loads(pickle.dumps(one))):
        assert sampler.is_exhausted(study)
    assert [c.key for c in configs_of(study, model.space)] == whole


def search_in_journal(path: str) -> None:
    """What a process of its own does: it goes on with the study to its end."""
    model = model_of_processes()
    study = optuna.load_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path)),
        sampler=model.sampler(),
    )
    sampler = study.sampler
    assert isinstance(sampler, SurrogateQuantSampler)
    while not sampler.is_exhausted(study):
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)


def journal_study(path: Path, sampler: SurrogateQuantSampler) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.create_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize",
        sampler=sampler,
        load_if_exists=True,
    )


def in_processes(zygote: Zygote, path: Path, count: int) -> None:
    worker = "samplers.test_surrogate:search_in_journal"
    workers = [zygote.start(worker, path=str(path)) for _ in range(count)]
    assert zygote.join(*workers) == [0] * count


def test_another_process_goes_on_in_the_same_way(zygote: Zygote, tmp_path: Path):
    model, whole = model_of_processes(), asked_by_one()
    study = journal_study(tmp_path / "journal", model.sampler())
    for _ in range(3):
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
    in_processes(zygote, tmp_path / "journal", 1)
    assert [c.key for c in configs_of(study, model.space)] == whole


# Several workers.


def check_shared(study: optuna.Study, model: SimulatedModel) -> None:
    spare = (record.EXHAUSTED_STAGE, record.SPARE_STAGE)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    keys = [
        model.space.config_from_params(t.params).key
        for t, stage in zip(study.trials, stages_of(study), strict=True)
        if stage not in spare
    ]
    assert len(set(keys)) == len(keys)
    assert best_cost(model, study) <= 1.15 * model.least_cost()


def test_processes_evaluate_nothing_twice(zygote: Zygote, tmp_path: Path):
    model = model_of_processes()
    study = journal_study(tmp_path / "journal", model.sampler())
    in_processes(zygote, tmp_path / "journal", 3)
    check_shared(study, model)
    assert model.sampler().is_exhausted(study)


@pytest.mark.parametrize(
    ("ops", "hard"), [SIZES[0], pytest.param(*SIZES[1], marks=pytest.mark.slow)]
)
def test_threads_evaluate_nothing_twice(ops: int, hard: int):
    model = SimulatedModel(ops, hard, easy=0.02)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    together = threading.Barrier(3)

    def objective(trial: optuna.Trial) -> float:
        config = model.space.suggest(trial)
        if 1 <= trial.number <= 3:
            together.wait(60)  # All workers are at work at once.
        return model.metric(config)

    def work() -> None:
        while not sampler.is_exhausted(study):
            assert len(study.trials) < 80, "the search does not end"
            study.optimize(objective, n_trials=1)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(work) for _ in range(3)]:
            future.result(120)
    check_shared(study, model)


# What others have evaluated.


def test_trials_of_others_are_observations():
    model = SimulatedModel(30, 3, noise=1.5, seed=5)
    alone = searched(model.sampler(), model.metric)
    rng = random.Random(0)
    study = optuna.create_study(direction="maximize")
    distributions = model.space.distributions()
    for _ in range(40):
        chosen = [op for op in model.losses if rng.random() < 0.3]
        config = model.space.default().with_fallback(*chosen)
        study.add_trial(
            optuna.trial.create_trial(
                params=model.space.params_of(config),
                distributions=distributions,
                value=model.metric(config),
            )
        )
    sampler = model.sampler()
    searched(sampler, model.metric, study=study, most=60)
    asked = [t for t in study.trials[40:] if TrialView(t).claim is not None]
    assert len(asked) <= len(alone.trials)
    assert best_cost(model, study) <= 1.05 * model.least_cost()
    # The first one that is chosen by the model already knows what is hard.
    first = next(t for t in asked if TrialView(t).claim.stage == "cheapest believed to meet")
    config = model.space.config_from_params(first.params)
    assert {f"op{i}" for i in model.hard} <= set(config.fallback_ops)


def test_what_is_enqueued_comes_first_and_is_learned_from():
    model = SimulatedModel(16, 2)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    given = model.space.default().with_fallback(*(f"op{i}" for i in model.hard))
    study.enqueue_trial(model.space.params_of(model.space.fp32()))
    study.enqueue_trial(model.space.params_of(given))
    searched(sampler, model.metric, study=study)
    configs = configs_of(study, model.space)
    assert configs[0] == given
    assert model.loss(given) <= 0.01
    # It is known: only what is cheaper is still tried.
    for config, stage in zip(configs[1:], stages_of(study)[2:], strict=True):
        assert model.table.cost(config) < model.table.cost(given) or stage == "exhausted"


# What can go wrong.


def test_failing_evaluations_do_not_stop_it():
    model = SimulatedModel(16, 2, easy=0.015)
    rng = random.Random(1)

    def metric(config: QuantConfig) -> float:
        draw = rng.random() if config.quantized_ops else 1.0
        if draw < 0.3:
            raise RuntimeError("no memory")
        return math.nan if draw < 0.5 else model.metric(config)

    study = searched(model.sampler(max_failures=2), metric, most=80, catch=(RuntimeError,))
    assert TrialState.FAIL in {trial.state for trial in study.trials}
    assert best_cost(model, study) <= 1.3 * model.least_cost()


def test_a_model_that_always_fails_where_it_is_cheapest():
    """One op breaks the runtime whenever it is quantized."""
    model = SimulatedModel(16, 1)
    bad = f"op{model.hard[0]}"

    def metric(config: QuantConfig) -> float:
        if config[bad].is_quantized:
            raise RuntimeError("not implemented")
        return model.metric(config)

    study = searched(model.sampler(max_failures=1), metric, most=80, catch=(RuntimeError,))
    assert met(study, model.space)


@pytest.mark.parametrize(("ops", "hard"), SMALL_SIZES)
def test_where_nothing_can_meet_it_ends_by_itself(ops: int, hard: int):
    model = SimulatedModel(ops, hard, curve=lambda total: 0.3 + total)
    sampler = model.sampler()
    study = searched(sampler, model.metric, most=17)
    assert not met(study, model.space)
    assert best_met_trial(study, CRITERION) is None


def test_where_everything_fails_narrowly_it_ends_as_well():
    model = SimulatedModel(8, 2, curve=lambda total: 0.0105 + total)
    study = searched(model.sampler(), model.metric, most=27)
    assert not met(study, model.space)


def equal(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    return dict.fromkeys(ops, 0.0)


@pytest.mark.parametrize(
    ("ops", "hard", "sensitivity"),
    [
        pytest.param(*SIZES[0], None, id="16-none"),
        pytest.param(*SIZES[1], None, id="50-none", marks=pytest.mark.slow),
        pytest.param(*SIZES[0], equal, id="all zero"),
    ],
)
def test_without_sensitivities_it_learns_from_trials(ops: int, hard: int, sensitivity):
    model = SimulatedModel(ops, hard)
    study = searched(model.sampler(sensitivity=sensitivity), model.metric, most=40)
    found = [config for config in met(study, model.space) if config.quantized_ops]
    assert found
    assert best_cost(model, study) < model.table.cost(model.space.fp32())


def test_sensitivities_that_raise_end_the_search_with_their_error():
    model = SimulatedModel(16, 2)

    def broken(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        raise RuntimeError("no torch")

    with pytest.raises(RuntimeError, match="no torch"):
        searched(model.sampler(sensitivity=broken), model.metric)


def test_sensitivities_that_are_no_numbers_are_named():
    model = SimulatedModel(16, 2)

    def broken(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        return model.sensitivity(config, ops) | {"op3": math.nan}

    with pytest.raises(ValueError, match="nan for 'op3'"):
        searched(model.sampler(sensitivity=broken), model.metric)


def test_scores_that_make_no_sense_raise_nothing():
    model = SimulatedModel(16, 2)
    odd = {"op3": math.inf, "op4": -1.0, "op5": 1e300}

    def sensitivity(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        return {op: odd.get(op, score) for op, score in model.sensitivity(config, ops).items()}

    study = searched(model.sampler(sensitivity=sensitivity), model.metric, most=40)
    assert len(study.trials) > 2


@pytest.mark.parametrize("unit", [1e-6, 1e9])
def test_sensitivities_may_be_in_any_unit(unit: float):
    model = SimulatedModel(50, 3)

    def sensitivity(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        return {op: unit * score for op, score in model.sensitivity(config, ops).items()}

    study = searched(model.sampler(sensitivity=sensitivity), model.metric, most=21)
    assert best_cost(model, study) <= 1.1 * model.least_cost()


@pytest.mark.parametrize("factor", [1 / 30, 30])
@pytest.mark.parametrize(
    ("ops", "hard"), [SIZES[0], pytest.param(*SIZES[1], marks=pytest.mark.slow), SIZES[2]]
)
def test_a_sensitivity_that_is_far_off(ops: int, hard: int, factor: float):
    """Of a hard op that seems harmless, or of a harmless one that seems hard."""
    model = SimulatedModel(ops, hard)
    easy = next(i for i in range(ops) if i not in model.hard)
    wrong = f"op{model.hard[0] if factor < 1 else easy}"
    model.scores[wrong] = {label: factor * s for label, s in model.scores[wrong].items()}
    study = searched(model.sampler(), model.metric, most=21)
    assert best_cost(model, study) <= 1.15 * model.least_cost()


# Criteria and metrics.


def test_a_tolerance_of_zero():
    """Some ops lose nothing at all."""
    model = SimulatedModel(16, 0)
    for i in range(10):
        model.losses[f"op{i}"][STATIC.label] = model.scores[f"op{i}"][STATIC.label] = 0.0
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.0)
    study = searched(model.sampler(criterion=criterion), model.metric, most=40)
    found = met(study, model.space, criterion)
    assert max(len(config.quantized_ops) for config in found) >= 5


@pytest.mark.parametrize("baseline", [0.0, 0.05, 30.0])
def test_errors_that_rise(baseline: float):
    """Lower is better, and an error of FP32 says little about that of others."""
    model = SimulatedModel(50, 3, baseline=baseline)
    criterion = AccuracyCriterion(
        criterion="absolute", tolerable_loss=0.01, higher_is_better=False
    )
    study = searched(
        model.sampler(criterion=criterion),
        lambda config: baseline + model.loss(config),
        direction="minimize",
        most=26,
    )
    assert best_cost(model, study, criterion=criterion) <= 1.1 * model.least_cost()


@pytest.mark.parametrize("baseline", [0.0, -0.3, -120.0, 75.0])
def test_metrics_of_any_sign_and_size(baseline: float):
    """Such as a logarithm of a likelihood, or a correlation, or percents."""
    size = max(1.0, abs(baseline))
    model = SimulatedModel(16, 2, baseline=baseline)
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01 * size)
    study = searched(
        model.sampler(criterion=criterion),
        lambda config: baseline - size * model.loss(config),
        most=26,
    )
    assert best_cost(model, study, criterion=criterion) <= 1.1 * model.least_cost()


# Spaces.


def test_tied_ops_are_given_up_together():
    model = SimulatedModel(16, 1, seed=6)
    bad = model.hard[0]
    others = [i for i in range(16) if i != bad]
    groups = {"with it": [f"op{bad}", f"op{others[0]}"], "pair": [f"op{i}" for i in others[1:3]]}
    space = model.space.group(groups)
    sampler = SurrogateQuantSampler(
        space, criterion=CRITERION, costs=model.table, sensitivity=model.sensitivity
    )
    study = searched(sampler, model.metric)
    best = min(met(study, space), key=model.table.cost)
    assert set(groups["with it"]) <= set(best.fallback_ops)
    assert len(best.quantized_ops) >= 12


def test_ops_that_cannot_be_in_floats_stay_quantized():
    model = SimulatedModel(16, 2, options=(STATIC, STATIC_TENSOR, FP32))
    easy = [i for i in range(16) if i not in model.hard]
    fixed = {f"op{i}" for i in easy[:4]}
    tunables = tuple(
        type(t)(t.name, t.op_type, t.ops, t.quantized if t.name in fixed else t.options)
        for t in model.space.tunables
    )
    space = TuningSpace(tunables)
    sampler = SurrogateQuantSampler(
        space, criterion=CRITERION, costs=model.table, sensitivity=model.sensitivity
    )
    study = optuna.create_study(direction="maximize")
    # No trial can have everything in floats.
    set_baseline(study, Baseline(model.baseline))
    searched(sampler, model.metric, study=study)
    assert met(study, space)
    for config in configs_of(study, space):
        assert fixed.isdisjoint(config.fallback_ops)


def test_several_options_in_floats():
    options = (STATIC, BF16, FP32)
    model = SimulatedModel(16, 2, options=options)
    for row in model.table.ops.values():
        assert set(row) == {option.label for option in options}
    cheap = {op: {**row, BF16.label: 0.6 * row[FP32.label]} for op, row in model.table.ops.items()}
    model.table = CostTable("latency", "s", cheap, model.table.boundaries)
    study = searched(model.sampler(), model.metric, most=40)
    best = min(met(study, model.space), key=model.table.cost)
    assert {best[f"op{i}"] for i in model.hard} == {BF16}


def test_an_option_that_saves_an_op():
    """Another algorithm for the range, or another mode, loses less: that is cheaper than FP32."""
    options = (STATIC, STATIC_KL, DYNAMIC, FP32)
    model = SimulatedModel(16, 2, options=options, seed=7)
    saved = f"op{model.hard[0]}"
    for rows in (model.losses, model.scores):
        rows[saved][STATIC_KL.label] = 1e-5
    study = searched(model.sampler(), model.metric, most=40)
    best = min(met(study, model.space), key=model.table.cost)
    assert best[saved] == STATIC_KL


def test_recipes_keep_their_defaults_and_sizes_that_gain_nothing_are_tried_once():
    model = SimulatedModel(16, 2)
    space = TuningSpace(
        model.space.tunables, {"smooth": (False, True)}, calibration_sizes=(100, 200)
    )
    sampler = SurrogateQuantSampler(
        space, criterion=CRITERION, costs=model.table, sensitivity=model.sensitivity
    )
    study = searched(sampler, model.metric)
    assert best_cost(model, study) <= 1.1 * model.least_cost()
    configs = list(configs_of(study, space))
    assert all(config.recipes == {"smooth": False} for config in configs)
    assert sum(config.calibration_size == 200 for config in configs) == 1


def test_without_costs_it_is_the_number_of_ops_in_fallback():
    model = SimulatedModel(50, 3)
    study = searched(model.sampler(costs=None), model.metric, most=21)
    best = min(met(study, model.space), key=lambda c: len(c.fallback_ops))
    assert len(best.fallback_ops) <= 4


# What it believes.


def test_beliefs_are_sorted_by_cost_and_say_what_to_expect():
    model = SimulatedModel(50, 3, easy=0.02)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    assert sampler.beliefs(study) == []
    for _ in range(4):
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
    found = sampler.beliefs(study)
    assert found
    costs = [belief.cost for belief in found]
    assert costs == sorted(costs)
    seen = {config.key for config in configs_of(study, model.space)}
    for belief in found:
        assert belief.cost == model.table.cost(belief.config)
        assert 0 <= belief.probability <= 1
        assert belief.improvement > 0
        assert belief.config.key not in seen
    # The more is in floats, the likelier it meets.
    assert found[-1].probability >= found[0].probability
    study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
    assert configs_of(study, model.space)[-1].key not in seen


def test_auto_is_the_same_search():
    model = SimulatedModel(16, 2)
    runs = []
    for cls in (SurrogateQuantSampler, AutoQuantSampler):
        sampler = cls(
            model.space, criterion=CRITERION, costs=model.table, sensitivity=model.sensitivity
        )
        study = searched(sampler, model.metric)
        runs.append([config.key for config in configs_of(study, model.space)])
    assert runs[0] == runs[1]


def test_the_way_of_neural_compressor_is_another():
    model = SimulatedModel(4, 1)
    sampler = AutoQuantSampler(model.space, criterion=CRITERION, compat="inc2")
    study = searched(sampler, model.metric)
    first, second = stages_of(study)[1:3]
    assert first == "default"
    assert second.startswith("convert Conv")
    assert met(study, model.space)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"criterion": None}, TypeError, "criterion"),
        ({"costs": {"op0": 1.0}}, TypeError, "costs must be a CostTable"),
        ({"min_gain": 0.0}, ValueError, "min_gain must be a number above 0, but got 0.0"),
        ({"min_gain": math.nan}, ValueError, "min_gain"),
        (
            {"costs": CostTable("latency", "s", {"op0": {STATIC.label: 1.0}})},
            ValueError,
            "no cost for op 'op0' as 'fp32'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        SurrogateQuantSampler(make_space(2), **({"criterion": CRITERION} | options))


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="compat must be None or 'inc2', but got 'inc3'"):
        AutoQuantSampler(make_space(2), criterion=CRITERION, compat="inc3")


# Samples one by one.

SAMPLED = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)


def sampled(
    backend: FakeBackend,
    evaluation: SampleScores,
    *,
    criterion: AccuracyCriterion = SAMPLED,
    study: optuna.Study | None = None,
    **options: Any,
) -> optuna.Study:
    """A study that was searched, each model evaluated on no more samples than it takes."""
    given = {"sensitivity": lambda config, ops: {op: backend.damage[op] for op in ops}} | options
    sampler = SurrogateQuantSampler(backend.tuning_space(), criterion=criterion, **given)
    if study is None:
        study = optuna.create_study(direction="maximize", sampler=sampler)
    study.sampler = sampler
    objective = QuantObjective(
        backend, backend.tuning_space(), evaluation, criterion, stopping=STOPPING
    )
    search(study, objective)
    return study


DAMAGES = {f"op{i}": (i % 5) * 0.002 for i in range(20)} | {"op3": 0.2, "op11": 0.1}


@pytest.mark.parametrize("breaks", ["hard", "any", "easy"])
def test_with_samples_the_answer_was_evaluated_on_all(breaks: str):
    backend = backend_of(DAMAGES)
    evaluation = SampleScores(DAMAGES, breaks=breaks)
    study = sampled(backend, evaluation)
    found = answers(study, backend)
    assert found
    for trial in study.trials:
        config = backend.tuning_space().config_from_params(trial.params)
        if config.key in found:
            assert evaluation.seen_of(backend.fingerprint(config)) == evaluation.samples
            assert {"op3", "op11"} & set(config.fallback_ops)
    assert evaluation.most_repeats == 1
    # It took less than to evaluate everything in full.
    models = {t.user_attrs[record.FINGERPRINT] for t in study.trials}
    assert evaluation.evaluated < 1000 * len(models)


@pytest.mark.parametrize(("tolerable_loss", "fallback", "better"), [(0.005, 8, 7), (0.01, 6, 5)])
def test_a_thorough_search_goes_on_with_all_that_may_be_better(
    tolerable_loss: float, fallback: int, better: int
):
    rng = np.random.default_rng(0)
    damage = {f"op{i}": float(v) for i, v in enumerate(np.exp(rng.normal(-6.5, 1.5, 12)))}
    off = np.exp(rng.normal(0, 1, 12))
    scores = {op: d * f for (op, d), f in zip(damage.items(), off, strict=True)}
    backend, evaluation = backend_of(damage), SampleScores(damage, breaks="any")
    given: dict[str, Any] = {
        "criterion": AccuracyCriterion(criterion="absolute", tolerable_loss=tolerable_loss),
        "sensitivity": lambda config, ops: {op: scores[op] for op in ops},
    }
    study = sampled(backend, evaluation, **given)
    assert isinstance(study.sampler, SurrogateQuantSampler)
    found = study.sampler.explain(study)
    assert found is not None and found.untried is not None
    assert (found.met, found.stage, found.cost) == (True, None, fallback)
    assert found.untried.is_promising
    assert str(found).endswith("; timeout=None (--timeout none) would try it")
    promised = found.untried.config.key

    trials = len(study.trials)
    sampled(backend, evaluation, study=study, thorough=True, **given)
    assert backend.tuning_space().key_from_params(study.trials[trials].params) == promised
    found = study.sampler.explain(study)
    assert found is not None
    assert (found.met, found.cost) == (True, better)
    assert found.untried is None or not found.untried.is_promising
    assert "--timeout none" not in str(found)


def sizes_of(space: TuningSpace, sizes: Mapping[str, float]) -> CostTable:
    """Each op takes so much room in floats, and a quarter of it quantized."""
    ops = {
        op: {o.label: sizes[op] * (0.25 if o.is_quantized else 1.0) for o in tunable.options}
        for tunable in space.tunables
        for op in tunable.ops
    }
    return CostTable("size", "bytes", ops)


@pytest.mark.parametrize("size", [0.5, 9.0])
@pytest.mark.parametrize("hard", [(), ("op1",), ("op1", "op4")])
def test_what_the_first_phase_has_spent_is_not_held_against_the_second(
    hard: tuple[str, ...], size: float
):
    sizes = {f"op{i}": 1.0 for i in range(6)} | {"table": size}
    damage = {op: 0.2 if op in hard else 0.001 for op in sizes}
    backend, evaluation = backend_of(damage), SampleScores(damage)
    space = backend.tuning_space()
    costs = sizes_of(space, sizes)
    study = sampled(backend, evaluation, costs=costs, first_ops=frozenset(sizes) - {"table"})
    best = min(met(study, space, SAMPLED), key=costs.cost)
    assert set(best.fallback_ops) == set(hard)


@pytest.mark.parametrize("seed", [2, 31])
def test_it_does_not_end_while_something_much_cheaper_is_believed(seed: int):
    rng = np.random.default_rng(seed)
    ops = [f"op{i}" for i in range(12)]
    damage = dict(zip(ops, np.exp(rng.normal(-6.5, 1.5, 12)).tolist(), strict=True))
    # Sensitivities that are far off, so that much is spent in vain.
    off = np.exp(rng.normal(0, 3, 12))
    scores = {op: damage[op] * float(f) for op, f in zip(ops, off, strict=True)}
    sizes = dict(zip(ops, np.exp(rng.normal(0, 1.5, 12)).tolist(), strict=True))
    backend = backend_of(damage)
    study = sampled(
        backend,
        SampleScores(damage, breaks="any"),
        criterion=CRITERION,
        costs=sizes_of(backend.tuning_space(), sizes),
        sensitivity=lambda config, ops: {op: scores[op] for op in ops},
    )
    assert isinstance(study.sampler, SurrogateQuantSampler)
    assert max(belief.improvement for belief in study.sampler.beliefs(study)) < 0.3


class Deceiving(SampleScores):
    """What quantization breaks comes last in the order in which samples are evaluated."""

    def scores_of(self, config: QuantConfig) -> Any:
        found = super().scores_of(config)
        levels = difficulty_levels(self._margins, self.samples)
        order = SampleOrder.draw(levels, seed=0).indices
        found[:] = 1.0
        lost = round(self.samples * sum(DAMAGES[op] for op in config.quantized_ops))
        found[order[::-1][: min(self.samples, lost)]] = 0.0
        return found


def test_promises_that_break_are_recovered_from():
    backend = backend_of(DAMAGES)
    evaluation = Deceiving(DAMAGES)
    study = sampled(backend, evaluation)
    broken = [t for t in study.trials if TrialView(t).claim.broken_promises]
    found = answers(study, backend)
    assert found
    fp32 = evaluation.metric(backend.tuning_space().fp32())
    for trial in study.trials:
        config = backend.tuning_space().config_from_params(trial.params)
        if config.key in found and trial.state == TrialState.COMPLETE:
            assert SAMPLED.meets(evaluation.metric(config), fp32)
    assert evaluation.most_repeats == 1
    assert broken, "this is about broken promises"
