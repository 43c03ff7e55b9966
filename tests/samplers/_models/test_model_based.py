"""What the TPE and the Bayesian sampler promise alike."""

from __future__ import annotations

from collections import Counter
import pickle
from statistics import median
import threading
import time

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import evaluated
from spaces import keys
from spaces import make_space
from spaces import objective_of

from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers._bayesian import BayesianQuantSampler
from optuna_quant.samplers._tpe import TPEQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable
from optuna_quant.study.trial_view import TrialView


OPTIONS = (STATIC, STATIC_TENSOR, STATIC_KL, FP32)
BOTH = [TPEQuantSampler, BayesianQuantSampler]

pytestmark = pytest.mark.parametrize("sampler", BOTH)


def metric(config: QuantConfig) -> float:
    """Each op has another best option; FP32 loses nothing."""
    losses = {STATIC: (3, 1, 2), STATIC_TENSOR: (1, 3, 2), STATIC_KL: (2, 2, 1), FP32: (0, 0, 0)}
    total = sum(losses[option][i % 3] * (i + 1) for i, option in enumerate(config.ops.values()))
    return 0.9 - total / 1000


def create(sampler: QuantSampler, **kwargs: object) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler, **kwargs)


def foreign(space: TuningSpace, count: int, *, fallback: bool = False) -> list[FrozenTrial]:
    """Trials of another sampler."""
    study = create(RandomQuantSampler(space, fallback=fallback, seed=5))
    study.optimize(objective_of(space, metric), n_trials=count)
    return study.trials


@pytest.fixture
def space() -> TuningSpace:
    return make_space(6, OPTIONS)


@pytest.fixture
def tiny() -> TuningSpace:
    return make_space(2, OPTIONS)


def test_baseline_then_default(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space))
    study.optimize(objective_of(space, metric), n_trials=2)
    assert evaluated(study, space) == [space.fp32(), space.default()]


def test_quantized_choices_only_and_none_twice(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space))
    study.optimize(objective_of(space, metric), n_trials=40)
    assert len(set(keys(study, space))) == 40
    assert all(not config.fallback_ops for config in evaluated(study, space)[1:])


def test_fallback_is_an_option(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space, fallback=True))
    study.optimize(objective_of(space, metric), n_trials=40)
    assert len(set(keys(study, space))) == 40
    counts = [len(config.fallback_ops) for config in evaluated(study, space)[1:]]
    # Nothing loses less than fallback, and both find that out.
    assert sum(counts[-10:]) > 2 * sum(counts[:10])


@pytest.mark.parametrize("fallback", [False, True])
def test_ends_when_the_space_is_used_up(sampler: type, fallback: bool, tiny: TuningSpace) -> None:
    study = create(sampler(tiny, fallback=fallback, n_startup_trials=2))
    count = 16 if fallback else 1 + 9
    for _ in range(count):
        assert not study.sampler.is_exhausted(study)
        study.optimize(objective_of(tiny, metric), n_trials=1)
    assert study.sampler.is_exhausted(study)
    # Started again and again, it goes on with what is left of the space, and then repeats.
    for _ in range(16 - count + 2):
        study.optimize(objective_of(tiny, metric), n_trials=5)
    assert len(study.trials) == 18
    assert len(set(keys(study, tiny))) == 16


def test_the_last_ones_being_claimed_is_no_deadlock(sampler: type, tiny: TuningSpace) -> None:
    study = create(sampler(tiny, n_startup_trials=2))
    study.optimize(objective_of(tiny, metric), n_trials=7)
    asked = [tiny.suggest(study.ask()) for _ in range(9)]
    assert len({*asked, *evaluated(study, tiny)}) == 16
    assert not study.sampler.is_exhausted(study)


def test_the_same_in_every_process(sampler: type, space: TuningSpace) -> None:
    """A sampler that has seen nothing continues as the one that has seen it all."""
    whole, parts = create(sampler(space, seed=3)), create(sampler(space, seed=3))
    whole.optimize(objective_of(space, metric), n_trials=20)
    for _ in range(20):
        parts.sampler = pickle.loads(pickle.dumps(sampler(space, seed=3)))
        parts.optimize(objective_of(space, metric), n_trials=1)
    assert keys(parts, space) == keys(whole, space)


def test_the_same_in_every_process_while_others_run(sampler: type, space: TuningSpace) -> None:
    """Neither the order in which trials end nor what runs is known to the process alone."""
    found = []
    for always_new in (False, True):
        study = create(sampler(space, seed=3))
        pending = []
        for number in range(20):
            if always_new:
                study.sampler = sampler(space, seed=3)
            trial, asked = study.ask(), study.sampler
            if number % 3:
                space.suggest(trial)  # The others' parameters come late.
            pending.append((trial, asked))
            if len(pending) == 3:
                trial, study.sampler = pending.pop(number % 2)
                study.tell(trial, metric(space.suggest(trial)))
                study.sampler = asked
        found.append([TrialView(trial).claim.key for trial in study.trials])
    assert found[0] == found[1]
    assert len(set(found[0])) == 20


def test_claims_are_known_before_their_parameters(sampler: type, space: TuningSpace) -> None:
    """Asking for several trials at once is asking for them one after the other."""
    found = []
    for at_once in (False, True):
        study = create(sampler(space))
        study.optimize(objective_of(space, metric), n_trials=15)
        trials = []
        for _ in range(6):
            trials.append(study.ask())
            if not at_once:
                space.suggest(trials[-1])
        found.append([space.suggest(trial) for trial in trials])
    assert found[0] == found[1]


def test_seeds_differ(sampler: type, space: TuningSpace) -> None:
    found = []
    for seed in (0, 1):
        study = create(sampler(space, seed=seed))
        study.optimize(objective_of(space, metric), n_trials=15)
        found.append(keys(study, space))
    assert found[0] != found[1]


def test_minimizing_is_maximizing_the_negative(sampler: type, space: TuningSpace) -> None:
    up = create(sampler(space))
    up.optimize(objective_of(space, metric), n_trials=25)
    down = optuna.create_study(direction="minimize", sampler=sampler(space))
    down.optimize(objective_of(space, lambda config: -metric(config)), n_trials=25)
    assert keys(down, space) == keys(up, space)


def test_the_first_of_two_objectives_is_the_metric(sampler: type, space: TuningSpace) -> None:
    one = create(sampler(space))
    one.optimize(objective_of(space, metric), n_trials=25)
    two = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(space))
    two.optimize(lambda trial: (metric(space.suggest(trial)), 1.0), n_trials=25)
    assert keys(two, space) == keys(one, space)


@pytest.mark.parametrize("turned", [False, True])
def test_earlier_trials_are_learned_from(sampler: type, turned: bool, space: TuningSpace) -> None:
    """What another sampler found out decides what comes first."""
    study = create(sampler(space, baseline=False))
    for trial in foreign(space, 80)[1:]:
        value = -trial.value if turned else trial.value
        study.add_trial(
            optuna.create_trial(
                value=value, params=trial.params, distributions=trial.distributions
            )
        )
    asked = []
    for _ in range(5):
        trial = study.ask()
        asked.append(metric(space.suggest(trial)))
        study.tell(trial, -asked[-1] if turned else asked[-1])
    average = sum(metric(c) for c in evaluated(study, space)[:79]) / 79
    assert median(asked) < average if turned else median(asked) > average
    assert len(set(keys(study, space))) == 84


def test_trials_with_fallback_do_no_harm(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space))
    study.add_trials(foreign(space, 40, fallback=True))
    study.optimize(objective_of(space, metric), n_trials=20)
    assert len(set(keys(study, space))) == len(study.trials)
    mine = [c for c in evaluated(study, space)[40:] if c != space.fp32()]
    assert all(not config.fallback_ops for config in mine)


def test_started_by_tpe_and_continued_by_tpe(sampler: type, space: TuningSpace) -> None:
    study = create(optuna.samplers.TPESampler(seed=0))
    study.optimize(objective_of(space, metric), n_trials=12)
    before = set(keys(study, space))
    study.sampler = sampler(space)
    study.optimize(objective_of(space, metric), n_trials=12)
    mine = keys(study, space)[12:]
    assert not before & set(mine)
    assert len(set(mine)) == 12
    study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=0)
    study.optimize(objective_of(space, metric), n_trials=2)


def test_failed_configurations_are_abandoned(sampler: type, tiny: TuningSpace) -> None:
    study = create(sampler(tiny, max_failures=2, n_startup_trials=2))

    def objective(trial: optuna.Trial) -> float:
        config = tiny.suggest(trial)
        if config["op1"] == STATIC:
            raise RuntimeError("out of memory")
        return metric(config)

    for _ in range(1 + 6 + 2 * 3):
        assert not study.sampler.is_exhausted(study)
        study.optimize(objective, n_trials=1, catch=RuntimeError)
    assert study.sampler.is_exhausted(study)
    assert sorted(Counter(keys(study, tiny)).values()) == [1] * 7 + [2] * 3


def test_nothing_but_failures(sampler: type, tiny: TuningSpace) -> None:
    study = create(sampler(tiny, max_failures=1, n_startup_trials=1, baseline=False))
    study.optimize(lambda trial: float("nan") * len(tiny.suggest(trial).ops), n_trials=9)
    assert study.sampler.is_exhausted(study)
    assert len(set(keys(study, tiny))) == 9


def test_failed_before_any_parameter(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space, max_failures=1, n_startup_trials=1, baseline=False))

    def objective(trial: optuna.Trial) -> float:
        if trial.number % 2:
            raise RuntimeError("no disk")
        return metric(space.suggest(trial))

    study.optimize(objective, n_trials=20, catch=RuntimeError)
    claimed = [TrialView(trial).claim.key for trial in study.trials]
    assert len(set(claimed)) == 20


def test_pruned_trials_count(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space, n_startup_trials=3))

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        if trial.number > 1:
            if trial.number % 2:
                trial.report(metric(config), step=1)
            raise optuna.TrialPruned
        return metric(config)

    study.optimize(objective, n_trials=20)
    assert len(set(keys(study, space))) == 20


@pytest.mark.parametrize("value", [0.5, float("inf"), float("-inf")])
def test_a_metric_that_tells_nothing(sampler: type, value: float, space: TuningSpace) -> None:
    study = create(sampler(space, n_startup_trials=2))
    study.optimize(objective_of(space, lambda config: value), n_trials=15)
    assert len(set(keys(study, space))) == 15


def test_running_trials_are_not_asked_for_again(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space, n_startup_trials=5))
    study.optimize(objective_of(space, metric), n_trials=10)
    trials = [study.ask() for _ in range(12)]
    assert len({space.suggest(trial).key for trial in trials}) == 12
    study.tell(trials[3], state=TrialState.FAIL)
    study.tell(trials[7], metric(space.suggest(trials[7])))
    assert space.suggest(study.ask()) not in {
        space.suggest(trial) for trial in trials if trial is not trials[3]
    }


def test_threads_share_the_work(sampler: type, space: TuningSpace) -> None:
    study = create(sampler(space, n_startup_trials=5))
    lock, seen = threading.Lock(), set()

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        with lock:
            assert config not in seen
            seen.add(config)
        time.sleep(0.005)
        return metric(config)

    study.optimize(objective, n_trials=30, n_jobs=4)
    assert len(seen) == 30


def test_recipes_and_calibration_sizes(sampler: type) -> None:
    tunables = tuple(
        Tunable(f"op{i}", "Conv", (f"op{i}",), options)
        for i, options in enumerate([(STATIC, FP32), (STATIC,), (STATIC, DYNAMIC, FP32), (FP32,)])
    )
    space = TuningSpace(tunables, {"bias_correction": (False, True), "alpha": (0.5,)}, (100, 10))
    study = create(sampler(space, n_startup_trials=2, baseline=False))
    study.optimize(
        objective_of(space, lambda c: c.recipes["bias_correction"] + c.calibration_size / 100),
        n_trials=8,
    )
    assert study.sampler.is_exhausted(study)
    assert len(set(keys(study, space))) == space.count(fallback=False) == 8


def test_a_space_of_one_configuration(sampler: type) -> None:
    space = make_space(2, (STATIC,))
    study = create(sampler(space))
    study.optimize(objective_of(space, lambda config: 0.5), n_trials=3)
    assert study.sampler.is_exhausted(study)


def test_enqueued_and_partly_fixed_trials(sampler: type, space: TuningSpace) -> None:
    fixed = {"quant.op:op0": STATIC_KL.label}
    study = create(optuna.samplers.PartialFixedSampler(fixed, sampler(space, n_startup_trials=3)))
    chosen = space.default().with_ops({"op0": STATIC_KL, "op3": STATIC_TENSOR})
    study.enqueue_trial(space.params_of(chosen))
    study.optimize(objective_of(space, metric), n_trials=10)
    assert evaluated(study, space)[0] == chosen
    assert all(config["op0"] == STATIC_KL for config in evaluated(study, space))


def test_as_good_as_random(sampler: type) -> None:
    space = make_space(12, OPTIONS)
    best: dict[type, list[float]] = {sampler: [], RandomQuantSampler: []}
    for cls, found in best.items():
        for seed in range(3):
            study = create(cls(space, seed=seed))
            study.optimize(objective_of(space, metric), n_trials=30)
            found.append(max(trial.value for trial in study.trials[1:]))
    assert median(best[sampler]) > median(best[RandomQuantSampler])


@pytest.mark.parametrize("count", [0, -1])
def test_startup_trials_must_be_positive(sampler: type, count: int, space: TuningSpace) -> None:
    with pytest.raises(ValueError, match=f"n_startup_trials must be at least 1, but got {count}"):
        sampler(space, n_startup_trials=count)
