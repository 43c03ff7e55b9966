"""Whether the time of one ask grows with the trials: 50 and 500 ops, up to 1,000 trials."""

from __future__ import annotations

from pathlib import Path
import time

import optuna

from benchmarks.spaces import make_space
from benchmarks.spaces import metric
from benchmarks.spaces import objective_of
from optuna_quant.samplers import BasicQuantSampler


def run(cases: Path | None) -> None:
    print("basic, ms per trial (ask, suggest all, tell), by the number of past trials;")
    print("new process: the first ask of a sampler that has seen nothing of the study")
    for ops in (50, 500):
        space = make_space(ops)
        sampler = BasicQuantSampler(space)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for upto in (100, 500, 1000):
            before = len(study.trials)
            started = time.perf_counter()
            study.optimize(objective_of(space), n_trials=upto - before)
            each = (time.perf_counter() - started) / (upto - before)
            study.sampler = BasicQuantSampler(space)
            started = time.perf_counter()
            trial = study.ask()
            fresh = time.perf_counter() - started
            study.tell(trial, metric(space.suggest(trial)))
            study.sampler = sampler
            print(
                f"{ops:4} ops {upto:5} trials: {1e3 * each:7.1f}   new process {1e3 * fresh:7.1f}"
            )
