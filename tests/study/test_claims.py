"""A trial claims a configuration after all earlier ones, and no other one takes it."""

from __future__ import annotations

from collections import Counter
import time

from four_ops import create
from four_ops import finish
from four_ops import metric
from four_ops import silent_trial
import optuna
from optuna.trial import TrialState
import pytest
from spaces import keys
from spaces import make_space
from spaces import objective_of

from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import Plan
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import Stage
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.trial_view import TrialView


@pytest.fixture
def space() -> TuningSpace:
    return make_space(4)


def test_silent_lower_trials_are_waited_for_once(space: TuningSpace) -> None:
    """A running trial that never claims anything (another sampler's) costs one grace period."""
    study = create(BasicQuantSampler(space, grace_period=0.2))
    silent_trial(study)
    started = time.monotonic()
    study.optimize(objective_of(space, metric), n_trials=1)
    assert time.monotonic() - started >= 0.2
    started = time.monotonic()
    study.optimize(objective_of(space, metric), n_trials=3)
    assert time.monotonic() - started < 0.2


def test_retried_trials_do_not_inherit_the_claim(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=2)
    dead = study.ask()
    config = space.suggest(dead)
    study.tell(dead, state=TrialState.FAIL)
    failed = study.trials[dead.number]
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=failed.params,
            distributions=failed.distributions,
            system_attrs={"failed_trial": dead.number, **failed.system_attrs},
        )
    )
    finish(study, space)
    retried = study.trials[3]
    assert space.config_from_params(retried.params) == config
    assert TrialView(retried).claim.number == 3
    assert Counter(keys(study, space))[config.key] == 2


def test_a_running_claim_is_not_taken_again(space: TuningSpace) -> None:
    study = create(ExhaustiveQuantSampler(space, fallback=True))
    asked = [space.suggest(study.ask()) for _ in range(space.size)]
    assert len({config.key for config in asked}) == space.size


def test_told_as_failed_a_claim_goes_back(space: TuningSpace) -> None:
    study = create(ExhaustiveQuantSampler(space, fallback=True))
    trials = [study.ask() for _ in range(3)]
    configs = [space.suggest(trial) for trial in trials]
    study.tell(trials[1], state=TrialState.FAIL)
    assert space.suggest(study.ask()) == configs[1]


def test_two_asks_of_a_space_that_is_used_up_beside_a_silent_trial() -> None:
    space = make_space(2)
    study = create(RandomQuantSampler(space, fallback=True, grace_period=0.1))
    silent_trial(study)
    while not study.sampler.is_exhausted(study):
        study.optimize(lambda trial: len(space.suggest(trial).fallback_ops), n_trials=1)
    assert space.suggest(study.ask()) == space.suggest(study.ask()) == space.default()


def test_the_same_enqueued_twice_beside_a_silent_trial(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space, grace_period=0.1))
    silent_trial(study)
    for _ in range(2):
        study.enqueue_trial(space.params_of(space.fp32()), skip_if_exists=False)
    assert space.suggest(study.ask()) == space.suggest(study.ask()) == space.fp32()


class Stumbling(StagedQuantSampler):
    """Its first ask of a plan fails, or is interrupted."""

    error: BaseException | None = None

    def plan(self, space: TuningSpace) -> Plan:
        error, self.error = self.error, None
        if error is not None:
            raise error
        yield Stage("default", [space.default()])


@pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyboardInterrupt()])
def test_ask_that_fails_leaves_nothing_that_others_would_wait_for(
    error: BaseException, space: TuningSpace
) -> None:
    sampler = Stumbling(space, baseline=False)
    study = create(sampler)
    sampler.error = error
    with pytest.raises(type(error)):
        study.ask()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
    sampler._sessions.clear()
    started = time.monotonic()
    finish(study, space)
    assert time.monotonic() - started < 4
    assert keys(study, space)[-1] == space.default().key


def test_refused_worker_leaves_nothing_that_others_would_wait_for(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=1)
    study.sampler, mine = BasicQuantSampler(make_space(5)), study.sampler
    with pytest.raises(ValueError, match="another tuning space"):
        study.ask()
    study.sampler = mine
    assert study.trials[-1].state == TrialState.FAIL
    finish(study, space)


def test_running_trials_of_other_samplers_count_as_claims(space: TuningSpace) -> None:
    study = create(BasicQuantSampler(space, baseline=False))
    study.sampler, mine = (
        optuna.samplers.PartialFixedSampler(
            space.params_of(space.default()), optuna.samplers.RandomSampler()
        ),
        study.sampler,
    )
    assert space.suggest(study.ask()) == space.default()
    study.sampler = mine
    assert space.suggest(study.ask()) != space.default()
