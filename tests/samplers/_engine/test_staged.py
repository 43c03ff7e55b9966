"""The staged engine: any history of a study is tolerated, nothing is evaluated twice."""

from __future__ import annotations

from collections import Counter
import pickle
import random
import threading
import time

from four_ops import create
from four_ops import finish
from four_ops import metric
import optuna
from optuna.trial import TrialState
import pytest
from spaces import STATIC
from spaces import evaluated
from spaces import keys
from spaces import make_space
from spaces import objective_of

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import Plan
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import Stage
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


def test_a_plan_that_yields_something_else_is_told_what_to_write(space: TuningSpace) -> None:
    class Bare(StagedQuantSampler):
        def plan(self, space: TuningSpace) -> Plan:
            yield space.default()  # type: ignore[misc]

    study = create(Bare(space))
    with pytest.raises(TypeError, match=r"has yielded QuantConfig. .* yield Stage\('name', "):
        finish(study, space)


@pytest.fixture
def space() -> TuningSpace:
    return make_space(4)


@pytest.fixture
def reference(space: TuningSpace) -> list[str]:
    """What one undisturbed process evaluates."""
    study = create(BasicQuantSampler(space))
    finish(study, space)
    return keys(study, space)


ALL = [BasicQuantSampler, ExhaustiveQuantSampler, RandomQuantSampler]


@pytest.mark.parametrize("sampler", ALL)
def test_nothing_twice_and_valid_samples_after_the_end(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space))
    finish(study, space)
    # It goes on with what has not been evaluated, until the space is used up, and then repeats.
    # Each call is stopped after its first trial, since the plan is over.
    while len(study.trials) < space.size:
        study.optimize(objective_of(space, metric), n_trials=3)
    assert len(set(keys(study, space))) == len(study.trials) == space.size
    for _ in range(3):
        study.optimize(objective_of(space, metric), n_trials=3)
    assert study.sampler.is_exhausted(study)
    assert len(study.trials) == space.size + 3


@pytest.mark.parametrize("sampler", ALL)
def test_the_same_in_every_process(sampler: type, space: TuningSpace) -> None:
    """A sampler that has seen nothing continues as the one that has seen it all."""
    whole = create(sampler(space))
    finish(whole, space)
    parts = create(sampler(space))
    while not parts.sampler.is_exhausted(parts):
        parts.sampler = sampler(space)
        parts.optimize(objective_of(space, metric), n_trials=1)
    assert keys(parts, space) == keys(whole, space)


def test_sampler_survives_pickling(space: TuningSpace, reference: list[str]) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=3)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    finish(study, space)
    assert keys(study, space) == reference


def test_one_sampler_in_two_studies(space: TuningSpace, reference: list[str]) -> None:
    sampler = BasicQuantSampler(space)
    first, second = create(sampler), create(sampler)
    for study in (first, second, first):
        study.optimize(objective_of(space, metric), n_trials=3)
    finish(first, space)
    finish(second, space)
    assert keys(first, space) == keys(second, space) == reference


def test_baseline_comes_first_and_is_kept(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=2)
    assert evaluated(study, space)[0] == space.fp32()
    assert TrialView(study.trials[0]).is_baseline
    assert get_baseline(study) == Baseline(1.0, 0)


def test_the_baseline_is_never_the_best_trial(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    finish(study, space)
    assert study.best_trial.number != 0
    assert study.trials[0].constraints == {record.QUANTIZED: 1.0}


def test_without_baseline(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space, baseline=False))
    study.optimize(objective_of(space, metric), n_trials=1)
    assert evaluated(study, space) == [space.default()]
    assert get_baseline(study) is None


def test_space_without_fp32_has_no_baseline_trial() -> None:
    space = make_space([("a", "Conv")], (STATIC,))
    study = create(ExhaustiveQuantSampler(space))
    study.optimize(lambda trial: metric_of_default(space, trial), n_trials=1)
    assert study.sampler.is_exhausted(study)


def metric_of_default(space: TuningSpace, trial: optuna.Trial) -> float:
    assert space.suggest(trial) == space.default()
    return 0.5


@pytest.mark.parametrize("sampler", ALL)
def test_enqueued_trials_are_used(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space))
    chosen = space.default().with_fallback("op2")
    study.enqueue_trial(space.params_of(chosen))
    study.enqueue_trial(space.params_of(space.fp32()))
    finish(study, space)
    assert evaluated(study, space)[:2] == [chosen, space.fp32()]
    assert len(set(keys(study, space))) == len(study.trials)
    assert get_baseline(study) == Baseline(1.0, 1)


def test_partly_enqueued_trials_take_the_rest_from_the_strategy(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)
    study.enqueue_trial({"quant.op:op1": FP32.label})
    study.optimize(objective_of(space, metric), n_trials=1)
    assert evaluated(study, space)[1] == space.default().with_fallback("op1")


def test_added_trials_are_used(space: TuningSpace, reference: list[str]) -> None:
    study = create(BasicQuantSampler(space))
    for config in (space.default(), space.default().with_fallback("op0")):
        study.add_trial(
            optuna.create_trial(
                params=space.params_of(config),
                distributions=space.distributions(),
                value=metric(config),
            )
        )
    finish(study, space)
    assert sorted(keys(study, space)) == sorted(reference)


def test_continues_a_study_of_another_sampler(space: TuningSpace) -> None:
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective_of(space, metric), n_trials=6)
    before = set(keys(study, space))
    study.sampler = BasicQuantSampler(space)
    finish(study, space)
    mine = keys(study, space)[6:]
    assert not before & set(mine)
    assert len(set(mine)) == len(mine)
    study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=0)
    study.optimize(objective_of(space, metric), n_trials=2)


@pytest.mark.parametrize("sampler", ALL)
def test_failed_configurations_are_tried_again_then_abandoned(
    sampler: type, space: TuningSpace
) -> None:
    bad = space.default().with_fallback("op3") if sampler is BasicQuantSampler else space.default()
    study = create(sampler(space, max_failures=2))

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        if config == bad:
            raise RuntimeError("out of memory")
        return metric(config)

    for _ in range(40):
        if study.sampler.is_exhausted(study):
            break
        study.optimize(objective, n_trials=1, catch=RuntimeError)
    assert study.sampler.is_exhausted(study)
    counts = Counter(keys(study, space))
    assert counts.pop(bad.key) == 2
    assert set(counts.values()) == {1}


def test_a_final_failure_is_not_tried_again(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)

    def objective(trial: optuna.Trial) -> float:
        space.suggest(trial)
        trial.set_user_attr(record.FAILURE_IS_FINAL, True)
        raise RuntimeError("not a number")

    study.optimize(objective, n_trials=1, catch=RuntimeError)
    finish(study, space)
    assert Counter(keys(study, space))[space.default().key] == 1


def test_failed_before_any_parameter_counts_as_failed(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space, max_failures=2, baseline=False))

    def objective(trial: optuna.Trial) -> float:
        raise RuntimeError("no disk")

    study.optimize(objective, n_trials=2, catch=RuntimeError)
    study.optimize(objective_of(space, metric), n_trials=1)
    assert evaluated(study, space)[0] != space.default()


def test_pruned_trials_count(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        if config == space.default().with_fallback("op2"):
            trial.report(0.9, step=1)  # What it had when it was stopped ranks it.
            raise optuna.TrialPruned
        return metric(config)

    while not study.sampler.is_exhausted(study):
        study.optimize(objective, n_trials=1)
    assert len(set(keys(study, space))) == len(study.trials)
    accumulated = [t for t in study.trials if TrialView(t).claim.stage == "accumulated fallback"]
    first = space.config_from_params(accumulated[0].params)
    assert set(first.fallback_ops) == {"op2", "op0"}


def test_a_later_better_result_changes_what_follows(space: TuningSpace) -> None:
    """A pruned trial is superseded by a complete one; the plan starts again."""
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)
    study.optimize(lambda trial: prune(space, trial), n_trials=1)
    study.optimize(objective_of(space, metric), n_trials=2)
    study.enqueue_trial(space.params_of(space.default()))
    finish(study, space)
    assert Counter(keys(study, space))[space.default().key] == 2
    assert set(Counter(keys(study, space)).values()) == {1, 2}


def prune(space: TuningSpace, trial: optuna.Trial) -> float:
    space.suggest(trial)
    raise optuna.TrialPruned


def test_ask_and_tell_in_any_order() -> None:
    space = make_space(7)  # Large enough not to be used up.
    losses = {f"op{i}": (i * 3) % 7 / 10 for i in range(7)}

    def metric(config: QuantConfig) -> float:
        return 1.0 - sum(losses[op] for op in config.quantized_ops)

    undisturbed = create(BasicQuantSampler(space))
    while not undisturbed.sampler.is_exhausted(undisturbed):
        undisturbed.optimize(objective_of(space, metric), n_trials=1)
    reference = keys(undisturbed, space)
    study = create(BasicQuantSampler(space))
    pending = []
    rng = random.Random(0)
    while not study.sampler.is_exhausted(study):
        while len(pending) < 3:
            trial = study.ask()
            pending.append((trial, space.suggest(trial)))
        trial, config = pending.pop(rng.randrange(3))
        study.tell(trial, metric(config))
    assert set(reference) <= set(keys(study, space))
    assert len(set(keys(study, space))) == len(study.trials)


def test_two_asks_without_telling_speculate(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space, when_blocked="wait"))
    asked = [space.suggest(study.ask()) for _ in range(4)]
    assert asked[:2] == [space.fp32(), space.default()]
    # No other worker can finish the stage, so waiting would never end.
    assert asked[2:] == [
        space.default().with_fallback("op3"),
        space.default().with_fallback("op2"),
    ]
    claims = [TrialView(trial).claim for trial in study.trials]
    assert [claim.speculative for claim in claims] == [False, False, True, True]


@pytest.mark.parametrize("when_blocked", ["speculate", "wait"])
def test_threads_share_the_work(
    when_blocked: str, space: TuningSpace, reference: list[str]
) -> None:
    study = create(BasicQuantSampler(space, when_blocked=when_blocked))
    running: list[str] = []
    lock = threading.Lock()

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        with lock:
            assert config.key not in running
            running.append(config.key)
        time.sleep(0.01)
        return metric(config)

    study.optimize(objective, n_trials=len(reference) + 2, n_jobs=4)
    assert len(set(keys(study, space))) == len(study.trials)
    if when_blocked == "wait":
        assert set(reference) <= set(keys(study, space))


def test_speculation_follows_a_wrong_guess_with_the_right_plan(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=2)
    pending = [(trial := study.ask(), space.suggest(trial)) for _ in range(6)]
    for trial, config in pending:
        study.tell(trial, metric(config))
    finish(study, space)
    stages = [TrialView(trial).claim.stage for trial in study.trials]
    assert stages.count("instance-wise fallback") == 4
    wanted = space.default().with_fallback("op2", "op0")
    assert wanted.key in keys(study, space)


def test_telling_before_the_baseline_does_not_wait_for_it(space: TuningSpace) -> None:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
    study = create(BasicQuantSampler(space, criterion=criterion))
    baseline, first = study.ask(), study.ask()
    space.suggest(baseline)
    study.tell(first, metric(space.suggest(first)))
    study.tell(baseline, 1.0)
    finish(study, space)
    # What could not be judged when it was told is judged from the record.
    assert record.ACCURACY not in study.trials[1].constraints
    assert record.ACCURACY in study.trials[2].constraints


def test_an_interrupted_trial_is_no_failure(space: TuningSpace, reference: list[str]) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)

    def objective(trial: optuna.Trial) -> float:
        space.suggest(trial)
        trial.set_user_attr(record.INTERRUPTED, True)
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            study.optimize(objective, n_trials=1)
    finish(study, space)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert [space.key_from_params(trial.params) for trial in complete] == reference


def test_mixes_with_other_hyperparameters(space: TuningSpace) -> None:
    tpe = optuna.samplers.TPESampler(seed=0)
    study = create(BasicQuantSampler(space, independent_sampler=tpe))
    rates = set()

    def objective(trial: optuna.Trial) -> float:
        rates.add(trial.suggest_float("lr", 1e-4, 1e-1, log=True))
        return metric(space.suggest(trial))

    study.optimize(objective, n_trials=8)
    assert len(rates) == 8
    assert len(set(keys(study, space))) == 8


def test_partial_fixed_sampler(space: TuningSpace) -> None:
    fixed = optuna.samplers.PartialFixedSampler(
        {"quant.op:op0": FP32.label}, BasicQuantSampler(space)
    )
    study = create(fixed)
    for _ in range(50):
        if fixed._base_sampler.is_exhausted(study):
            break
        study.optimize(objective_of(space, metric), n_trials=1)
    configs = evaluated(study, space)
    assert all(not config["op0"].is_quantized for config in configs)
    # The plan is carried out to its end, with the op in FP32 throughout.
    assert fixed._base_sampler.is_exhausted(study)
    assert {config.fallback_ops for config in configs} >= {("op0",), ("op0", "op2")}


def test_two_objectives_take_the_first_as_the_metric(space: TuningSpace) -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=BasicQuantSampler(space)
    )
    while not study.sampler.is_exhausted(study):
        study.optimize(
            lambda trial: (metric(c := space.suggest(trial)), len(c.quantized_ops)), n_trials=1
        )
    accumulated = [t for t in study.trials if TrialView(t).claim.stage == "accumulated fallback"]
    config = space.config_from_params(accumulated[0].params)
    assert set(config.fallback_ops) == {"op2", "op0"}


class Walk(StagedQuantSampler):
    """One more op in fallback at each step."""

    def plan(self, space: TuningSpace) -> Plan:
        (best,) = yield Stage("default", [space.default()], provisional=True)
        config = best.config
        for tunable in space.tunables:
            config = config.with_fallback(*tunable.ops)
            yield Stage("walk", [config])


def test_own_strategy(space: TuningSpace) -> None:
    study = create(Walk(space))
    finish(study, space)
    assert [config.fallback_ops for config in evaluated(study, space)[1:]] == [
        (),
        ("op0",),
        ("op0", "op1"),
        ("op0", "op1", "op2"),
    ]
    assert TrialView(study.trials[1]).claim.provisional
    assert not TrialView(study.trials[2]).claim.provisional


def test_a_plan_may_ask_for_the_same_twice(space: TuningSpace) -> None:
    class Twice(StagedQuantSampler):
        def plan(self, space: TuningSpace) -> Plan:
            results = yield Stage("twice", [space.default(), space.default()])
            assert results[0] == results[1]
            yield Stage("empty", [])
            yield Stage("again", [space.default()])

    study = create(Twice(space))
    finish(study, space)
    assert keys(study, space) == [space.fp32().key, space.default().key]


def test_a_configuration_outside_the_space_is_refused(space: TuningSpace) -> None:
    class Outside(StagedQuantSampler):
        def plan(self, space: TuningSpace) -> Plan:
            yield Stage("outside", [space.default().with_fallback("op0", mode="bf16")])

    study = create(Outside(space, baseline=False))
    with pytest.raises(
        ValueError, match=r"Stage 'outside': .* not in the tuning space: op 'op0' has bf16"
    ):
        study.ask()


def test_study_of_another_space_is_refused(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)
    study.sampler = BasicQuantSampler(make_space(5))
    with pytest.raises(ValueError, match="another tuning space: op 'op4' is in the given space"):
        study.ask()
