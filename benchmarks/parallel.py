"""Speed-up of 1 to 16 workers on each storage; an evaluation sleeps, so cores do not limit it.

Efficiency is held against workers without any overhead: ``configurations x sleep / (workers x
time)``, from the first start to the last end in a stage of 100 configurations. 100 is no multiple
of 8 or 16, so that at most 0.96 and 0.89 are possible there; the last column says how much of
that is reached. The environment variables ``STORAGES``, ``WORKERS``, ``SLEEP`` and ``STRATEGIES``
choose.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from pathlib import Path
import tempfile
import time
from typing import TYPE_CHECKING

import optuna

from benchmarks.servers import new_storage
from benchmarks.servers import wanted_kinds
from benchmarks.spaces import ACTIVATION
from benchmarks.spaces import make_space
from benchmarks.spaces import metric
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier


CONFIGS = 100


def _hundred_configs() -> TuningSpace:
    """Two ops with ten options each."""
    options = tuple(
        OpConfig("static", ACTIVATION, TensorConfig(dtype, "sym", granularity, algorithm))
        for dtype in ("int8", "uint8")
        for granularity in ("per_channel", "per_tensor")
        for algorithm in ("minmax", "mse", "kl")
    )[:10]
    return TuningSpace(tuple(Tunable(name, "Conv", (name,), options) for name in ("op1", "op2")))


def _sampler(strategy: str) -> QuantSampler:
    if strategy == "exhaustive":
        return ExhaustiveQuantSampler(_hundred_configs())
    # Without guesses, so that the time is that of one stage.
    return BasicQuantSampler(make_space(CONFIGS), when_blocked="wait")


def _is_measured(trial: optuna.trial.FrozenTrial, strategy: str) -> bool:
    claim = TrialView(trial).claim
    assert claim is not None
    if strategy == "exhaustive":
        return claim.stage not in (record.EXHAUSTED_STAGE, record.SPARE_STAGE)
    return claim.stage == "instance-wise fallback" and not claim.speculative


def _work(url: str, strategy: str, sleep: float, begin: Barrier) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = _sampler(strategy)
    study = optuna.load_study(storage=open_storage(url), study_name="bench", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        config = sampler.space.suggest(trial)
        time.sleep(sleep)
        return metric(config) if strategy == "basic" else 1.0

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        done = sum(
            _is_measured(trial, strategy)
            for trial in study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        )
        if done >= CONFIGS:
            study.stop()

    begin.wait()
    study.optimize(objective, callbacks=[stop])


def _measure(kind: str, strategy: str, workers: int, sleep: float) -> float | None:
    """Seconds for the stage; :obj:`None` if the server does not answer."""
    with (
        tempfile.TemporaryDirectory() as folder,
        new_storage(kind, Path(folder)) as url,
    ):
        if url is None:
            return None
        study = optuna.create_study(
            storage=open_storage(url), study_name="bench", direction="maximize"
        )
        context = multiprocessing.get_context("fork")
        begin = context.Barrier(workers)
        processes = [
            context.Process(target=_work, args=(url, strategy, sleep, begin))
            for _ in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        trials = [t for t in study.trials if t.state.is_finished() and _is_measured(t, strategy)]
        keys = {claim.key for t in trials if (claim := TrialView(t).claim) is not None}
        assert len(keys) == len(trials) >= CONFIGS, "a configuration was evaluated twice"
        ends = [t.datetime_complete for t in trials if t.datetime_complete is not None]
        starts = [t.datetime_start for t in trials if t.datetime_start is not None]
        # A trial that was asked for before the stage began has waited for the stage before.
        before = [
            t.datetime_complete
            for t in study.trials
            if t.datetime_complete is not None and t.datetime_complete < min(ends)
        ]
        return (max(ends) - max([min(starts), *before])).total_seconds()


def run(cases: Path | None) -> None:
    sleep = float(os.environ.get("SLEEP", "1"))
    workers = [int(n) for n in os.environ.get("WORKERS", "1,2,4,8,16").split(",")]
    print(f"{CONFIGS} configurations in one stage, {sleep:g} s each")
    for strategy in os.environ.get("STRATEGIES", "exhaustive,basic").split(","):
        for kind in wanted_kinds():
            for count in workers:
                taken = _measure(kind, strategy, count, sleep)
                if taken is None:
                    print(f"{strategy:10} {kind:10} does not answer")
                    break
                ideal = CONFIGS * sleep / count
                possible = math.ceil(CONFIGS / count) * sleep
                print(
                    f"{strategy:10} {kind:10} {count:2} workers {taken:7.1f} s  efficiency "
                    f"{ideal / taken:.2f}  of what is possible {possible / taken:.2f}",
                    flush=True,
                )
