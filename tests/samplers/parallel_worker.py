"""What a worker process of the parallel tests does."""

from __future__ import annotations

import time

import optuna
import services
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant.config import FP32
from optuna_quant.config import QuantConfig
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.space import TuningSpace


LOSSES = {f"op{i}": (i * 5) % 9 / 10 for i in range(9)}


def metric(config: QuantConfig) -> float:
    return 1.0 - sum(LOSSES[op] for op in config.quantized_ops)


def sampler_of(name: str, *, when_blocked: str = "wait") -> tuple[TuningSpace, QuantSampler]:
    if name == "basic":
        space = make_space(9)
        return space, BasicQuantSampler(space, when_blocked=when_blocked)
    space = make_space(5, (STATIC, STATIC_TENSOR, FP32))
    if name == "exhaustive":
        return space, ExhaustiveQuantSampler(space)
    return space, RandomQuantSampler(space, seed=7)


def work(url: str, name: str, *, seconds: float, when_blocked: str) -> None:
    """Evaluate until the strategy has nothing left."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, sampler = sampler_of(name, when_blocked=when_blocked)
    study = services.create(url)
    study.sampler = sampler

    def objective(trial: optuna.Trial) -> float:
        config = space.suggest(trial)
        time.sleep(seconds)
        return metric(config)

    while not sampler.is_exhausted(study):
        study.optimize(objective, n_trials=1)
