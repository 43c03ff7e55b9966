"""A search of four ops whose losses are known, for tests of what becomes of its trials."""

from __future__ import annotations

import optuna
from spaces import objective_of

from optuna_quant.samplers import QuantSampler
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


LOSSES = {"op0": 0.2, "op1": 0.05, "op2": 0.4, "op3": 0.1}


def metric(config: QuantConfig) -> float:
    return 1.0 - sum(LOSSES[op] for op in config.quantized_ops)


def create(sampler: QuantSampler, **kwargs: object) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler, **kwargs)


def finish(study: optuna.Study, space: TuningSpace, most: int = 100) -> None:
    """Run the study until its sampler has nothing left."""
    for _ in range(most):
        if study.sampler.is_exhausted(study):
            return
        study.optimize(objective_of(space, metric), n_trials=1)
    raise AssertionError("The strategy did not end.")


def silent_trial(study: optuna.Study) -> None:
    """A trial that is running and never says whose it is."""
    study.sampler, mine = optuna.samplers.RandomSampler(seed=0), study.sampler
    study.ask()
    study.sampler = mine
