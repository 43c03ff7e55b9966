"""One ask of the Bayesian sampler: at 100 ops, and against Optuna's GPSampler at 10 ops."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler

from benchmarks.spaces import make_space
from benchmarks.spaces import metric
from benchmarks.timing import alternating
from optuna_quant.samplers._bayesian import BayesianQuantSampler
from optuna_quant.samplers._tpe import TPEQuantSampler
from optuna_quant.space.space import TuningSpace


TRIALS = 200
# What one ask at 100 ops may take, in seconds.
BUDGET = 0.5


def run(cases: Path | None) -> None:
    print(f"ask, suggest all, tell after {TRIALS} trials of Optuna's random sampler, 4 options")
    space = make_space(100)
    names = ["tpe", "bayesian, next ask", "bayesian, new process"]
    bayesian = _asking(space, BayesianQuantSampler(space, fallback=True))
    actions = [
        _asking(space, TPEQuantSampler(space, fallback=True)),
        bayesian,
        # It refits the model, which an ask in a living process does for every tenth trial.
        _asking(space, lambda: BayesianQuantSampler(space, fallback=True)),
    ]
    times = alternating(*actions, repeat=9)
    for name, taken in zip(names, times, strict=True):
        print(f"100 ops {name:22} {taken:6.3f} s  {taken / BUDGET:5.2f} times {BUDGET} s")
    if find_spec("torch") is None:
        print(" 10 ops: left out, Optuna's GPSampler needs torch")
        return
    space = make_space(10)
    optuna_gp = optuna.samplers.GPSampler(seed=0, deterministic_objective=True)
    ours, fresh, theirs = alternating(
        _asking(space, BayesianQuantSampler(space, fallback=True)),
        _asking(space, lambda: BayesianQuantSampler(space, fallback=True)),
        _asking(space, optuna_gp),
        repeat=5,
    )
    print(f" 10 ops optuna GPSampler       {theirs:6.3f} s")
    for name, taken in (("next ask", ours), ("new process", fresh)):
        print(f" 10 ops bayesian, {name:12} {taken:6.3f} s  {taken / theirs:5.2f} times optuna's")


def _asking(
    space: TuningSpace, sampler: BaseSampler | Callable[[], BaseSampler]
) -> Callable[[], None]:
    """One trial, by the same sampler or by a new one each time."""
    source = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1)
    )
    source.optimize(lambda trial: metric(space.suggest(trial)), n_trials=TRIALS)
    study = optuna.create_study(direction="maximize")
    study.add_trials(source.trials)

    def ask() -> None:
        study.sampler = sampler if isinstance(sampler, BaseSampler) else sampler()
        trial = study.ask()
        study.tell(trial, metric(space.suggest(trial)))

    ask()  # The FP32 model, for a sampler of ours,
    ask()  # and the default configuration.
    return ask
