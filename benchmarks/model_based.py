"""What TPE and Bayesian find at the budget of random search, on metrics like those of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import optuna

from benchmarks.spaces import make_space
from optuna_quant.samplers import BayesianQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import TPEQuantSampler
from optuna_quant.space.space import TuningSpace


SAMPLERS: dict[str, type[QuantSampler]] = {
    "random": RandomQuantSampler,
    "tpe": TPEQuantSampler,
    "bayesian": BayesianQuantSampler,
}
BUDGETS = (50, 100)
SEEDS = 10


def run(cases: Path | None) -> None:
    print(f"best metric found (higher is better), median of {SEEDS} metrics; 3 quantized options")
    for ops in (20, 50):
        space = make_space(ops)
        found = {
            name: [_best(space, cls, seed) for seed in range(SEEDS)]
            for name, cls in SAMPLERS.items()
        }
        for place, budget in enumerate(BUDGETS):
            for name, best in found.items():
                pairs = [
                    (mine[place], random[place])
                    for mine, random in zip(best, found["random"], strict=True)
                ]
                print(
                    f"{ops:3} ops {budget:4} trials {name:9} "
                    f"{median(mine for mine, _ in pairs):.4f}  better than random in "
                    f"{sum(mine > random for mine, random in pairs):2}, "
                    f"worse in {sum(mine < random for mine, random in pairs):2} of {SEEDS}"
                )


def _best(space: TuningSpace, cls: type[QuantSampler], seed: int) -> list[float]:
    """The best metric after each budget; the FP32 model is not counted."""
    metric = make_metric(space, seed)
    study = optuna.create_study(direction="maximize", sampler=cls(space, seed=seed))
    study.optimize(lambda trial: metric(_positions(space, trial)), n_trials=1 + max(BUDGETS))
    values = [trial.values[0] for trial in study.get_trials(deepcopy=False)]
    return [max(values[1 : 1 + budget]) for budget in BUDGETS]


def _positions(space: TuningSpace, trial: optuna.Trial) -> np.ndarray:
    positions = space.positions_of(space.suggest(trial))
    assert positions is not None
    return np.array(positions)


def make_metric(space: TuningSpace, seed: int) -> Callable[[np.ndarray], float]:
    """An accuracy that falls with each op's loss, by neighbours together, on 1,000 samples.

    A few ops carry most of the loss (log-normal), an op's options differ in it, and half of the
    neighbouring ops have a joint effect of about half their own size. FP32 loses nothing.
    """
    rng = np.random.default_rng(seed)
    count = len(space.parameters)
    options = len(space.parameters[0].quantized)
    losses = rng.lognormal(0.0, 1.5, (count, 1)) * rng.lognormal(0.0, 0.6, (count, options))
    losses *= 0.03 / losses[:, 0].sum()
    size = np.sqrt(losses[:-1].mean(axis=1) * losses[1:].mean(axis=1))
    joint = rng.normal(0.0, 0.5, (count - 1, options, options)) * size[:, None, None]
    joint[rng.random(count - 1) < 0.5] = 0.0
    # FP32 is the last option of each op.
    losses = np.pad(losses, ((0, 0), (0, 1)))
    joint = np.pad(joint, ((0, 0), (0, 1), (0, 1)))
    each = np.arange(count)

    def metric(positions: np.ndarray) -> float:
        alone = losses[each, positions].sum()
        together = joint[each[:-1], positions[:-1], positions[1:]].sum()
        return round(float(0.92 - alone - together), 3)

    return metric
