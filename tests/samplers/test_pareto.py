"""The pareto strategy: what it evaluates, in studies with one objective and with several."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
import math
from pathlib import Path
import shutil
from typing import Any

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import numpy as np
import optuna
from optuna.samplers import NSGAIISampler
from optuna.samplers import TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.trial import TrialState
import pytest
from spaces import make_space

from optuna_quant import AccuracyCriterion
from optuna_quant import ParetoObjective
from optuna_quant import TuningCriterion
from optuna_quant import tune
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.costs import CostTable
from optuna_quant.costs.dominance import hypervolume
from optuna_quant.samplers import ParetoQuantSampler
from optuna_quant.selection import front_points
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


OPS = 10
RNG = np.random.default_rng(5)
DAMAGE = {f"op{i}": float(x) for i, x in enumerate(RNG.lognormal(-4.5, 1.2, OPS))}
GAINS = {f"op{i}": float(x) for i, x in enumerate(RNG.lognormal(0.0, 0.7, OPS))}
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)


@cache
def table() -> CostTable:
    static, fp32 = (option.label for option in make_space(1).tunables[0].options)
    return CostTable("latency", "s", {op: {static: 0.0, fp32: g} for op, g in GAINS.items()})


def sensitivity(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    """Roughly right: in the order of the damage, but for some."""
    return {op: DAMAGE[op] * (3.0 if i % 3 else 0.4) for i, op in enumerate(ops)}


SPACE = make_space(OPS)


def make_sampler(**kwargs: Any) -> ParetoQuantSampler:
    given = {"criterion": CRITERION, "costs": table(), "sensitivity": sensitivity}
    return ParetoQuantSampler(SPACE, **given | kwargs)


def accuracy(config: QuantConfig) -> float:
    lost = sum(DAMAGE[op] for op in config.quantized_ops)
    return 0.9 * math.exp(-lost / 0.9)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    config = SPACE.suggest(trial)
    return accuracy(config), table().cost(config)


def make_study(sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    return optuna.create_study(
        directions=["maximize", "minimize"], sampler=sampler or make_sampler()
    )


def area(points: Sequence[tuple[float, float]]) -> float:
    """The hypervolume of metrics and costs."""
    return hypervolume(
        [(cost, 0.9 - metric) for metric, cost in points], (sum(GAINS.values()), 0.2)
    )


@cache
def every() -> list[tuple[float, float]]:
    configs = [SPACE.config_at(i) for i in range(SPACE.count(fallback=True))]
    return [(accuracy(config), table().cost(config)) for config in configs]


class TestOptunaSuite(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    # All values of all parameters are in test_optuna_suite.py.
    test_combination_of_different_distributions_objective = None
    test_sample_relative_numerical = None

    @pytest.fixture
    def sampler(self):
        lower = AccuracyCriterion(higher_is_better=False)  # The suite minimizes.
        return lambda: ParetoQuantSampler(make_space(3), criterion=lower)


def test_twenty_trials_find_nearly_the_whole_front():
    study = make_study()
    study.optimize(objective, n_trials=21)
    best = area(every())
    assert area([tuple(t.values) for t in study.trials]) > 0.98 * best
    random = make_study(optuna.samplers.RandomSampler(seed=0))
    random.optimize(objective, n_trials=200)
    assert area([tuple(t.values) for t in random.trials]) < area(
        [tuple(t.values) for t in study.trials]
    )


def test_begins_with_fp32_and_the_cheapest_and_evaluates_nothing_twice():
    study = make_study()
    study.optimize(objective, n_trials=16)
    stages = [TrialView(trial).claim.stage for trial in study.trials]
    assert stages[:3] == ["baseline", "cheapest to start with", "front"]
    assert study.trials[1].values[1] == min(cost for _, cost in every())
    params = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert len(params) == 16


def test_ends_when_no_gain_is_expected():
    sampler = make_sampler(min_gain=0.01)
    study = make_study(sampler)
    while not sampler.is_exhausted(study):
        study.optimize(objective, n_trials=1)
    few = len(study.trials)
    assert 4 <= few <= 25
    patient = make_sampler(min_gain=1e-5)
    study.sampler = patient
    assert not patient.is_exhausted(study)


def test_a_new_process_goes_on_as_the_old_one_would_have():
    whole = make_study()
    whole.optimize(objective, n_trials=12)
    parts = make_study()
    for _ in range(12):
        parts.sampler = make_sampler()
        parts.optimize(objective, n_trials=1)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]


def test_several_workers_look_at_different_parts_of_the_front():
    study = make_study()
    study.optimize(objective, n_trials=3)
    asked = [study.ask() for _ in range(5)]
    values = [objective(trial) for trial in asked]
    assert len({cost for _, cost in values}) == 5
    for trial, value in zip(asked, values, strict=True):
        study.tell(trial, value)
    study.optimize(objective, n_trials=16, n_jobs=4)
    params = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert len(params) == len(study.trials) == 24
    assert area([tuple(t.values) for t in study.trials]) > 0.98 * area(every())


def test_teaches_itself_from_the_trials_of_others():
    study = make_study(TPESampler(seed=0))
    study.enqueue_trial(SPACE.params_of(SPACE.fp32()))
    study.optimize(objective, n_trials=30)
    before = area([tuple(t.values) for t in study.trials])
    study.sampler = make_sampler()
    study.optimize(objective, n_trials=8)
    assert area([tuple(t.values) for t in study.trials]) > before
    beliefs = study.sampler.beliefs(study)
    assert [b.cost for b in beliefs] == sorted(b.cost for b in beliefs)
    assert all(0 < b.improvement < 1 and 0 <= b.probability <= 1 for b in beliefs)


def test_failed_evaluations_are_left_out():
    failing = {"count": 0}

    def sometimes(trial: optuna.Trial) -> tuple[float, float]:
        metric, cost = objective(trial)
        if 0 < trial.number % 4 < 2:
            failing["count"] += 1
            return math.nan, cost
        return metric, cost

    study = make_study(make_sampler(max_failures=1))
    study.optimize(sometimes, n_trials=16)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert failing["count"] > 2
    assert len(complete) + failing["count"] == 16
    params = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert len(params) == 16


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_the_criterion_constrains_where_there_is_one_objective(directions):
    study = optuna.create_study(directions=directions, sampler=make_sampler())
    study.optimize(lambda trial: objective(trial)[: len(directions)], n_trials=6)
    constrained = [bool(trial.constraints) for trial in study.trials]
    assert constrained == [len(directions) == 1] * 6
    if len(directions) == 2:
        # FP32 and the cheapest are the ends of the front.
        assert {0, 1} <= {trial.number for trial in study.best_trials}
    assert get_baseline(study).value == 0.9


def test_lower_is_better():
    criterion = AccuracyCriterion(
        criterion="absolute", tolerable_loss=0.01, higher_is_better=False
    )
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=make_sampler(criterion=criterion)
    )

    def error(trial: optuna.Trial) -> tuple[float, float]:
        metric, cost = objective(trial)
        return 1 - metric, cost

    study.optimize(error, n_trials=21)
    assert area([(1 - t.values[0], t.values[1]) for t in study.trials]) > 0.95 * area(every())


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "far"])
def test_refuses_a_reference_loss_that_is_none(value):
    with pytest.raises(ValueError, match="reference_loss must be a number above 0"):
        make_sampler(reference_loss=value)
    with pytest.raises(ValueError, match="min_gain"):
        make_sampler(min_gain=0)
    with pytest.raises(TypeError, match="criterion"):
        make_sampler(criterion=None)


# The objective function of a study with several objectives.


def fake_objective(backend: FakeBackend, evaluate: Any = None, **kwargs: Any) -> ParetoObjective:
    given: dict[str, Any] = {"objectives": ["ops", "size"], "grace_period": 0.5}
    return ParetoObjective(
        backend,
        backend.tuning_space(),
        evaluate or CountingEvaluation(),
        CRITERION,
        **given | kwargs,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda space: ParetoQuantSampler(space, criterion=CRITERION),
        lambda space: TPESampler(seed=1, n_startup_trials=5),
        lambda space: NSGAIISampler(seed=1, population_size=8),
    ],
)
def test_any_sampler_runs_a_study_of_metric_and_costs(make):
    backend = FakeBackend({"a": 0.05, "b": 0.0, "c": 0.01, "d": 0.02, "e": 0.1})
    evaluate = CountingEvaluation()
    found = fake_objective(backend, evaluate)
    space = backend.tuning_space()
    assert found.directions == ["maximize", "minimize", "minimize"]
    study = optuna.create_study(directions=found.directions, sampler=make(space))
    study.optimize(found, n_trials=25)
    assert evaluate.most_repeats() == 1
    for trial in study.trials:
        config = space.config_from_params(trial.params)
        model = backend.quantize(config)
        assert trial.values == [model.accuracy, len(config.fallback_ops), model.nbytes]
        assert not trial.constraints
        assert (record.MET in trial.user_attrs) == bool(config.quantized_ops)
    # The whole front, beyond the tolerance too, is what the record says as well.
    by_ops = front_points(study, CRITERION, "ops")
    best = {(t.values[1], t.values[0]) for t in study.best_trials}
    assert {(p.cost, p.metric) for p in by_ops} <= best
    assert all(p.met == (p.loss <= 0.01 + 1e-9) for p in by_ops)


def test_constraints_end_the_front_at_the_tolerance():
    backend = FakeBackend({"a": 0.05, "b": 0.0, "c": 0.01})
    found = fake_objective(backend, objectives="ops", constrain=True)
    study = optuna.create_study(
        directions=found.directions, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(found, n_trials=20)
    assert {tuple(t.values) for t in study.best_trials} == {(0.89, 1.0), (0.9, 2.0)}


def test_a_model_without_a_metric_fails_its_trial():
    def evaluate(model: FakeModel) -> float:
        if len(model.config.quantized_ops) == 2:
            raise RuntimeError("no")
        return model.accuracy

    backend = FakeBackend({"a": 0.05, "b": 0.0, "c": 0.01})
    found = fake_objective(backend, evaluate, objectives="ops")
    study = optuna.create_study(
        directions=found.directions, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(found, n_trials=12)
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    assert failed
    assert all("no" in t.user_attrs[record.FAILURE] for t in failed)


def test_what_cannot_be_known_is_refused_before_any_trial():
    backend = FakeBackend(3)
    with pytest.raises(ValueError, match="'latency' needs latency.*costs="):
        fake_objective(backend, objectives="latency")
    with pytest.raises(ValueError, match="size=0.5' needs size"):
        fake_objective(backend, objectives={"ops": 0.5, "size": 0.5})
    with pytest.raises(ValueError, match="at least one cost"):
        fake_objective(backend, objectives=[])
    study = optuna.create_study(direction="maximize")
    with pytest.raises(ValueError, match=r"directions=\['maximize', 'minimize', 'minimize'\]"):
        study.optimize(fake_objective(backend), n_trials=1)


def test_exit_policy_takes_nothing_without_a_quantized_op_for_an_answer():
    backend = FakeBackend({"a": 0.05, "b": 0.04})
    found = fake_objective(backend, objectives="ops")
    space = backend.tuning_space()
    study = optuna.create_study(
        directions=found.directions, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.enqueue_trial(space.params_of(space.fp32()))
    study.optimize(found, n_trials=3)
    assert ExitPolicy(CRITERION).decide(study) is None
    last = front_points(study, CRITERION, "ops")[-1]
    assert (last.is_fp32, last.trial, last.metric, last.fallback_ops) == (True, 0, 0.9, 2)


# In one call, and then with another tolerance.


class Evaluation:
    """The metric of fake models, which counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: FakeModel) -> float:
        self.calls += 1
        return model.accuracy


def searched(evaluate: Evaluation, storage: Path, tolerance: float, **search: Any) -> Any:
    backend = FakeBackend({op: round(x, 4) for op, x in DAMAGE.items()})
    return tune(
        backend=backend,
        evaluate=evaluate,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=tolerance),
        tuning_criterion=TuningCriterion(objective="ops", **search),
        storage=storage,
        verify=False,
        measure_gain=False,
    )


def test_another_tolerance_is_answered_from_the_record_of_a_front(tmp_path):
    evaluate = Evaluation()
    storage = tmp_path / "study.log"
    first = searched(evaluate, storage, 0.01, strategy="pareto", max_trials=20, timeout=None)
    front = first.front()
    assert len(front) >= 4
    from_record = 0
    for i, tolerance in enumerate(front["loss"][:-1:2]):
        chosen = first.choose(tolerable_loss=float(tolerance) + 1e-6)
        # By the default strategy, and without a limit.
        copied = tmp_path / f"study-{i}.log"
        shutil.copy(storage, copied)
        evaluate.calls = 0
        again = searched(evaluate, copied, float(tolerance) + 1e-6)
        assert again.met
        if evaluate.calls:
            assert again.cost <= chosen.cost
        else:
            from_record += 1
            assert (again.cost, again.config) == (chosen.cost, chosen.config)
    assert from_record >= len(front) // 4


SAMPLES = 1000


def searched_with_data(storage: Path, tolerance: float, **search: Any) -> Any:
    return tune(
        backend=FakeBackend({"op0": 0.1, "op1": 0.004, "op2": 0.002, "op3": 0.001}),
        data=fake_data(SAMPLES),
        accuracy_criterion=AccuracyCriterion(tolerable_loss=tolerance),
        tuning_criterion=TuningCriterion(objective="ops", **search),
        storage=storage,
        verify=False,
        measure_gain=False,
    )


def test_with_data_every_point_is_evaluated_on_all_samples(tmp_path):
    storage = tmp_path / "study.log"
    first = searched_with_data(storage, 0.01, strategy="pareto", max_trials=4, timeout=None)
    trials = first.study.get_trials(deepcopy=False)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 5
    assert any(t.user_attrs.get(record.MET) is False for t in trials)
    assert first.full_evaluations == pytest.approx(5)
    # The default strategy goes on from the record where it suffices: the cheapest of all is
    # good enough for a large tolerance.
    loss = first.front()["loss"].iloc[0]
    second = searched_with_data(storage, float(loss) + 0.001)
    assert len(second.study.trials) == len(trials)
    assert second.met
    assert second.trial.number == 1
    assert second.full_evaluations == first.full_evaluations


def test_what_was_seen_in_part_is_evaluated_to_its_end_and_nothing_else(tmp_path):
    storage = tmp_path / "study.log"
    first = searched_with_data(storage, 0.01)
    trials = first.study.get_trials(deepcopy=False)
    cheapest = trials[1]
    assert cheapest.state == TrialState.PRUNED  # It was given up.
    second = searched_with_data(storage, 0.2)
    (last,) = second.study.get_trials(deepcopy=False)[len(trials) :]
    assert last.params == cheapest.params
    assert last.user_attrs[record.CONTINUES] == 1
    assert (second.met, second.trial.number) == (True, last.number)
    left = 1 - cheapest.user_attrs[record.EVIDENCE]["samples"] / SAMPLES
    assert second.full_evaluations - first.full_evaluations == pytest.approx(left)
    # And back: what has met the first criterion does so still.
    third = searched_with_data(storage, 0.01)
    assert len(third.study.trials) == len(trials) + 1
    assert third.config == first.config
