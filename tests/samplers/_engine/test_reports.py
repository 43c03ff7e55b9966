"""What is told of guesses, and of configurations that could not be evaluated."""

from __future__ import annotations

import optuna
import pytest
from spaces import make_space
from spaces import objective_of

from optuna_quant.samplers import Abandoned
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import Speculation
from optuna_quant.space.config import QuantConfig


LOSSES = {"op0": 0.2, "op1": 0.05, "op2": 0.4, "op3": 0.1}


def metric(config: QuantConfig) -> float:
    return 1.0 - sum(LOSSES[op] for op in config.quantized_ops)


def test_guess_that_comes_true_is_used_and_another_one_is_not() -> None:
    space = make_space(4)
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    study.optimize(objective_of(space, metric), n_trials=2)  # The baseline and the default.
    # All of a stage, and one more that can only be guessed.
    asked = [study.ask() for _ in range(5)]
    configs = [space.suggest(trial) for trial in asked]
    sampler = study.sampler
    assert isinstance(sampler, BasicQuantSampler)
    assert sampler.speculation(study) == Speculation(0, 0)
    study.tell(asked[4], metric(configs[4]))
    before = sampler.speculation(study)
    assert before == Speculation(1, 0)
    for trial, config in zip(asked[:4], configs[:4], strict=True):
        study.tell(trial, metric(config))
    while not sampler.is_exhausted(study):
        study.optimize(objective_of(space, metric), n_trials=1)
    after = sampler.speculation(study)
    wanted = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    while not wanted.sampler.is_exhausted(wanted):  # type: ignore[attr-defined]
        wanted.optimize(objective_of(space, metric), n_trials=1)
    keys = {space.key_from_params(trial.params) for trial in wanted.trials}
    assert after == Speculation(1, int(configs[4].key in keys))


@pytest.mark.parametrize(
    ("speculation", "text"),
    [
        (Speculation(0, 0), "nothing was evaluated ahead of its turn"),
        (Speculation(1, 1), "1 evaluated ahead of its turn, of which 1 was used"),
        (Speculation(7, 5), "7 evaluated ahead of their turn, of which 5 were used"),
    ],
)
def test_speculation_reads_well(speculation: Speculation, text: str) -> None:
    assert str(speculation) == text


def test_what_fails_too_often_is_abandoned_and_told() -> None:
    space = make_space(4)
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, max_failures=2)
    )
    bad = space.default().with_fallback("op1").key
    attempts = []

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        if config.key == bad:
            attempts.append(trial.number)
            raise RuntimeError("out of luck")
        return metric(config)

    sampler = study.sampler
    assert isinstance(sampler, BasicQuantSampler)
    while not sampler.is_exhausted(study):
        study.optimize(objective, n_trials=1, catch=(RuntimeError,))
    assert len(attempts) == 2
    assert sampler.abandoned(study) == (
        Abandoned(bad, attempts[-1], "the evaluation failed (2 times)"),
    )


def test_what_was_evaluated_after_all_is_not_abandoned() -> None:
    space = make_space(3)
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, max_failures=1)
    )
    failed = study.ask()
    params = space.suggest(failed)
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    sampler = study.sampler
    assert isinstance(sampler, BasicQuantSampler)
    assert [found.key for found in sampler.abandoned(study)] == [params.key]
    study.enqueue_trial(space.params_of(params))
    study.optimize(objective_of(space, metric), n_trials=1)
    assert sampler.abandoned(study) == ()
