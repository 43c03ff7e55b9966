"""Simulated models: what each op loses and costs is known, and so is the best configuration."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import math
from typing import Any

import numpy as np
import optuna
from spaces import STATIC
from spaces import make_space

from optuna_quant.costs import Boundary
from optuna_quant.costs import CostTable
from optuna_quant.costs.cheapest import cheapest
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)


def additive(total: float) -> float:
    return total


def power(total: float) -> float:
    """Errors of many ops cancel out in part."""
    return 0.01 * (total / 0.01) ** 0.7


def cliff(total: float) -> float:
    """Small errors change no answer; large ones change them all."""
    return 0.01 * (total / 0.01) ** 1.6 if total < 0.1 else 0.4 + 0.1 * total


class SimulatedModel:
    """A model whose metric is 0.9 less a function of the sum of what its ops lose.

    Args:
        ops:
            How many ops it has.
        hard:
            How many of them cannot be quantized.
        seed:
            Of what ops lose and cost.
        curve:
            What the metric makes of the sum.
        noise:
            The standard deviation of the logarithm of what a sensitivity is off.
        easy:
            What all ops together lose, but for the hard ones.
        options:
            The options of every op; all quantized ones after the first lose half as much.
    """

    def __init__(
        self,
        ops: int,
        hard: int,
        *,
        seed: int = 0,
        curve: Callable[[float], float] = additive,
        noise: float = 0.5,
        easy: float = 0.005,
        options: Sequence[OpConfig] = (STATIC, FP32),
        baseline: float = 0.9,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.space = make_space(ops, options)
        self.baseline = baseline
        names = list(self.space.default().ops)
        lost = np.exp(rng.normal(0, 1.0, ops))
        lost *= easy / lost.sum()
        self.hard = sorted(int(i) for i in rng.choice(ops, hard, replace=False))
        lost[self.hard] = rng.uniform(0.02, 0.3, hard)
        self.losses = {
            name: {
                option.label: float(loss) * (0.5 if i else 1.0) if option.is_quantized else 0.0
                for i, option in enumerate(options)
            }
            for name, loss in zip(names, lost, strict=True)
        }
        times = np.exp(rng.normal(0, 0.7, ops))
        costs = {
            name: {o.label: float(t) * (0.35 if o.is_quantized else 1.0) for o in options}
            for name, t in zip(names, times, strict=True)
        }
        boundaries = tuple(Boundary(a, (b,), 0.02, 0.02) for a, b in itertools.pairwise(names))
        self.table = CostTable("latency", "s", costs, boundaries)
        off = np.exp(rng.normal(0, noise, ops))
        self.scores = {
            name: {label: 3 * loss * float(factor) for label, loss in self.losses[name].items()}
            for name, factor in zip(names, off, strict=True)
        }
        self.curve = curve

    def loss(self, config: QuantConfig) -> float:
        total = sum(self.losses[op][option.label] for op, option in config.ops.items())
        return self.curve(total) if config.quantized_ops else 0.0

    def metric(self, config: QuantConfig) -> float:
        return self.baseline - self.loss(config)

    def sensitivity(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        return {op: self.scores[op][config.ops[op].label] for op in ops}

    def least_cost(self, tolerance: float = 0.01) -> float:
        """The cost of the cheapest configuration that loses at most this."""
        low, high = 0.0, 10.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.curve(middle) <= tolerance else (low, middle)
        best = cheapest(self.table, self.space, weights=self.losses, bound=low)
        return self.table.cost(best)

    def sampler(self, **options: Any) -> SurrogateQuantSampler:
        """A sampler for it."""
        given = {
            "criterion": CRITERION,
            "costs": self.table,
            "sensitivity": self.sensitivity,
        } | options
        return SurrogateQuantSampler(self.space, **given)


def searched(
    sampler: QuantSampler,
    metric: Callable[[QuantConfig], float],
    *,
    most: int = 60,
    study: optuna.Study | None = None,
    direction: str = "maximize",
    catch: tuple[type[Exception], ...] = (),
) -> optuna.Study:
    """A study that was searched until the sampler has nothing left.

    Args:
        sampler:
            The sampler.
        metric:
            The metric of a configuration.
        most:
            So many trials are taken for an endless search.
        study:
            The study to go on with. Default: a new one.
        direction:
            Of a new one.
        catch:
            The exceptions that trials may raise.
    """
    study = study or optuna.create_study(direction=direction, sampler=sampler)
    study.sampler = sampler
    while not sampler.is_exhausted(study):
        assert len(study.get_trials(deepcopy=False)) < most, "the search does not end"
        study.optimize(lambda trial: metric(sampler.space.suggest(trial)), n_trials=1, catch=catch)
    return study


def configs_of(study: optuna.Study, space: TuningSpace) -> list[QuantConfig]:
    """The configurations that a study has evaluated, the FP32 model's not among them."""
    found = [
        space.config_from_params(t.params) for t in study.get_trials(deepcopy=False) if t.params
    ]
    return [config for config in found if config.quantized_ops]


def stages_of(study: optuna.Study) -> list[str]:
    claims = (TrialView(trial).claim for trial in study.get_trials(deepcopy=False))
    return [claim.stage for claim in claims if claim is not None]


def met(
    study: optuna.Study, space: TuningSpace, criterion: AccuracyCriterion = CRITERION
) -> list[QuantConfig]:
    """The configurations that meet the criterion, the FP32 model's not among them."""
    baseline = get_baseline(study)
    assert baseline is not None
    found = []
    for trial in study.get_trials(deepcopy=False):
        if trial.values and math.isfinite(trial.values[0]):
            config = space.config_from_params(trial.params)
            if config.quantized_ops and criterion.meets(trial.values[0], baseline.value):
                found.append(config)
    return found
