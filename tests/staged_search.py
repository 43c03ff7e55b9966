"""Runs a staged strategy to its end, and shows each trial as its stage and a letter per op."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_16
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import objective_of

from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.trial_view import TrialView


SHORT = {
    FP32: "f",
    STATIC: "s",
    STATIC_TENSOR: "t",
    STATIC_KL: "k",
    DYNAMIC: "d",
    OpConfig("bf16"): "b",
    OpConfig("fp16"): "h",
    STATIC_16: "w",
    OpConfig("static", STATIC.activation): "a",
}


def run(
    space: TuningSpace,
    metric: Callable[[QuantConfig], float],
    *,
    direction: str = "maximize",
    kind: Callable[..., QuantSampler] = BasicQuantSampler,
    **kwargs: object,
) -> list[str]:
    """Every trial as its stage and a letter per op, until the strategy has nothing left."""
    _, lines = searched(kind(space, **kwargs), metric, direction=direction)
    return lines


def searched(
    sampler: QuantSampler,
    metric: Callable[[QuantConfig], float],
    *,
    direction: str = "maximize",
    most: int | None = None,
) -> tuple[optuna.Study, list[str]]:
    """The study and a line per trial, as :func:`run`; it ends after so many trials, if it says."""
    space = sampler.space
    study = optuna.create_study(direction=direction, sampler=sampler)
    count = 0  # Reading all trials after each takes longer than the search.
    while not sampler.is_exhausted(study) and count != most:
        study.optimize(objective_of(space, metric), n_trials=1)
        count += 1
        assert count < 200
    lines = []
    for trial in study.trials:
        config = space.config_from_params(trial.params)
        recipes = "".join(f" {name}={value}" for name, value in config.recipes.items())
        letters = "".join(SHORT[option] for option in config.ops.values())
        lines.append(f"{TrialView(trial).claim.stage}: {letters}{recipes}")
    return study, lines


def loss_per_op(**losses: float) -> Callable[[QuantConfig], float]:
    """A metric from which each quantized op takes its loss."""

    def metric(config: QuantConfig) -> float:
        quantized = config.quantized_ops
        return 1.0 - sum(loss for op, loss in losses.items() if op in quantized)

    return metric
