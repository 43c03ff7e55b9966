"""What a search hands out if it is ended early: ops in fallback after 5, 10, 20, 50, 100 trials.

The models are generated: of 83 to 110 ops a few are hard to quantize, at random places. A search
ends at its first answer, as ``tune`` does by default; what it has then stays for later columns.
The figures are medians over ``SEEDS`` (default: 0 to 4), with the worst in brackets; where nothing
meets the criterion yet all ops are counted. ``STRATEGIES`` and ``MODEL`` choose some, separated by
commas.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
from statistics import median

import numpy as np
import optuna

from benchmarks.spaces import OPTIONS
from optuna_quant import AccuracyCriterion
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable
from optuna_quant.tuning.strategies import needs_sensitivity


STRATEGIES = ("auto", "conservative", "basic", "mse", "mse_v2", "hawq_v2")
BUDGETS = (5, 10, 20, 50, 100)
TOLERANCE = 0.01
FP32_METRIC = 0.9
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=TOLERANCE)

# The scores of ops are the square roots of what quantizing them costs, times e to the normal of
# this standard deviation: of errors of outputs no more than their order is to be had, roughly.
_SCORE_NOISE = 1.5


@dataclass(frozen=True)
class LossModel:
    """What quantizing ops costs, in units of the tolerance.

    Args:
        ops:
            The number of ops.
        hard:
            How many are hard to quantize.
        harm:
            What each of the hard ones costs, in the median.
        rest:
            What all the others cost together.
        spread:
            The spread of both: the standard deviation of the logarithm.
        joint:
            What each pair of hard ops costs beside, or saves if negative.
        noise:
            The standard deviation of the metric of a configuration.
    """

    ops: int
    hard: int
    harm: float
    rest: float
    spread: float = 0.5
    joint: float = 0.0
    noise: float = 0.0


MODELS = {
    "3 hard of 110": LossModel(110, 3, 4.0, 0.3),
    "8 hard of 83": LossModel(83, 8, 2.0, 0.4),
    "1 hard of 102, noisy": LossModel(102, 1, 3.0, 0.3, noise=0.15),
    "many small": LossModel(110, 0, 0.0, 3.0, spread=1.5),
    "far off": LossModel(83, 6, 25.0, 0.3),
    "only together": LossModel(110, 4, 0.3, 0.2, spread=0.2, joint=6.0),
    "masking each other": LossModel(83, 4, 4.0, 0.3, spread=0.2, joint=-1.5, noise=0.1),
}


class GeneratedModel:
    """A space, the metric of its configurations, and scores of its ops that are roughly right."""

    def __init__(self, model: LossModel, seed: int) -> None:
        rng = np.random.default_rng(seed)
        losses = rng.lognormal(0.0, model.spread, model.ops)
        places = rng.choice(model.ops, model.hard, replace=False)
        losses *= model.rest / (losses.sum() - losses[places].sum())
        losses[places] = model.harm * rng.lognormal(0.0, model.spread, model.hard)
        names = [f"op{i}" for i in range(model.ops)]
        # Another option of the ops helps some and harms others.
        factors = np.column_stack([np.ones(model.ops), rng.lognormal(0.0, 0.3, (model.ops, 2))])
        self._losses = dict(zip(names, losses[:, None] * factors, strict=True))
        self._hard = [names[i] for i in places]
        self._model, self._seed = model, seed
        noise = rng.lognormal(0.0, _SCORE_NOISE, model.ops)
        shares = losses.copy()
        shares[places] += max(model.joint, 0.0) / 2  # They move the output also where it is alone.
        scores = np.sqrt(shares) * noise
        self._scores = dict(zip(names, scores.tolist(), strict=True))
        kinds = ["Conv" if i % 10 else "MatMul" for i in range(model.ops)]
        self.space = TuningSpace(
            tuple(Tunable(n, k, (n,), OPTIONS) for n, k in zip(names, kinds, strict=True))
        )

    def __call__(self, config: QuantConfig) -> float:
        """The metric; higher is better."""
        quantized = config.quantized_ops
        lost = sum(self._losses[op][OPTIONS.index(config.ops[op])] for op in quantized)
        hard = sum(config.ops[op].is_quantized for op in self._hard)
        lost = max(lost + self._model.joint * hard * (hard - 1) / 2, 0.0)
        if self._model.noise and quantized:
            seed = [self._seed, int(config.key, 16) % 2**32]
            lost += float(np.random.default_rng(seed).normal(0.0, self._model.noise))
        # A model cannot be worse than guessing.
        return FP32_METRIC * float(np.exp(-lost * TOLERANCE / FP32_METRIC))

    def sensitivity(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        """The score of each op."""
        return {op: self._scores[op] for op in ops}

    def fewest(self) -> int:
        """The fewest ops in fallback with which the criterion is met, taken one by one."""
        config = self.space.default()
        order = sorted(self._losses, key=lambda op: -self._losses[op][0])
        order.sort(key=lambda op: op not in self._hard)
        for count, op in enumerate(["", *order]):
            config = config.with_fallback(op) if op else config
            if CRITERION.meets(self(config), FP32_METRIC):
                return count
        return len(order)


def run(cases: Path | None) -> None:
    """Print the table."""
    wanted = os.environ.get("STRATEGIES", ",".join(STRATEGIES)).split(",")
    seeds = [int(seed) for seed in os.environ.get("SEEDS", "0,1,2,3,4").split(",")]
    only = os.environ.get("MODEL", ",".join(MODELS).replace(", ", "; ")).split(",")
    only = [name.replace("; ", ", ") for name in only]
    print(f"ops in fallback of the best that meets the criterion, after so many trials; {seeds=}")
    heads = "".join(f"{budget:>11}" for budget in BUDGETS)
    print(f"{'model':22} {'best':>4} {'strategy':13}{heads}   trials until it ends")
    for name, model in MODELS.items():
        if name not in only:
            continue
        for strategy in wanted:
            searched = [search(strategy, GeneratedModel(model, seed)) for seed in seeds]
            best = median(GeneratedModel(model, seed).fewest() for seed in seeds)
            cells = "".join(
                f"{_shown([found[budget] for found, _ in searched]):>11}" for budget in BUDGETS
            )
            ends = _shown([trials for _, trials in searched])
            print(f"{name:22} {best:4g} {strategy:13}{cells}   {ends}", flush=True)


def search(strategy: str, model: GeneratedModel) -> tuple[dict[int, int], int]:
    """The ops in fallback after each budget, and after how many trials the search ended."""
    sampler = make_sampler(strategy, model)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    fewest, found = len(model.space.tunables), {}
    met: list[optuna.trial.FrozenTrial] = []
    ended = 0
    for number in range(1, max(BUDGETS) + 1):
        if not ended:
            trial = study.ask()
            config = model.space.suggest(trial)
            value = model(config)
            frozen = study.tell(trial, value)
            if config.quantized_ops and CRITERION.meets(value, FP32_METRIC):
                fewest = min(fewest, len(config.fallback_ops))
                met.append(frozen)
            # One that was met on the way can turn out to be the answer.
            is_answer = any(sampler.is_answer(study, trial) for trial in met)
            if is_answer or sampler.is_exhausted(study):
                ended = number
        if number in BUDGETS:
            found[number] = fewest
    return found, ended or max(BUDGETS)


def make_sampler(strategy: str, model: GeneratedModel) -> QuantSampler:
    """The sampler of a strategy, with sensitivities if it needs them."""
    make: Callable[..., QuantSampler] = strategies()[strategy]
    options = {}
    if needs_sensitivity(strategy):
        options["sensitivity"] = model.sensitivity
    return make(model.space, criterion=CRITERION, **options)


def _shown(values: Sequence[int]) -> str:
    return f"{median(values):g} ({max(values)})"
