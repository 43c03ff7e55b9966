"""One ask with all suggestions, at 100 ops and 1,000 past trials in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler

from benchmarks.spaces import make_space
from benchmarks.spaces import metric
from benchmarks.timing import alternating
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import RandomQuantSampler


OPS = 100
TRIALS = 1000


def run(cases: Path | None) -> None:
    space = make_space(OPS)
    samplers: dict[str, Callable[[], BaseSampler]] = {
        "optuna random": lambda: optuna.samplers.RandomSampler(seed=0),
        "basic": lambda: BasicQuantSampler(space),
        "exhaustive": lambda: ExhaustiveQuantSampler(space),
        "random": lambda: RandomQuantSampler(space),
    }
    asks = {}
    for name, make in samplers.items():
        study = optuna.create_study(direction="maximize", sampler=make())
        source = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1)
        )
        source.optimize(lambda trial: metric(space.suggest(trial)), n_trials=TRIALS)
        study.add_trials(source.trials)

        def ask(study: optuna.Study = study) -> None:
            trial = study.ask()
            study.tell(trial, metric(space.suggest(trial)))

        asks[name] = ask
    times = alternating(*asks.values(), repeat=30)
    print(f"{OPS} ops, {TRIALS} past trials: ask, suggest all, tell")
    for name, taken in zip(asks, times, strict=True):
        print(f"{name:14} {1e3 * taken:6.1f} ms  {taken / times[0]:5.2f} times optuna random")
