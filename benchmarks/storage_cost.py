"""What one trial costs in its storage: ask, claim, suggest, attributes, tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
import tempfile
import time
import warnings

import optuna
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalRedisBackend

from benchmarks.servers import new_storage
from benchmarks.servers import wanted_kinds
from benchmarks.spaces import make_space
from benchmarks.spaces import metric
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.space.space import TuningSpace
from optuna_quant.storages.open import open_storage
from optuna_quant.storages.write_buffer import buffered_writes


OPS = (100, 500)
TRIALS = 8
PLAIN_TRIALS = 3
LIMITS_MS = {"sqlite": 1000.0, "postgresql": 200.0, "journal": 200.0}


def run(cases: Path | None) -> None:
    # The heartbeat is for Study.optimize, which is not timed here.
    warnings.filterwarnings("ignore", message="Heartbeat of storage")
    print("one trial: ask, claim, suggest all, five attributes, tell; the median, in ms")
    print(f"{'storage':11} {'ops':>4} {'ours':>8} {'optuna':>9} {'ratio':>7}  limit")
    for kind in wanted_kinds():
        for ops in OPS:
            space = make_space(ops)
            ours = _in_new_storage(kind, space, open_storage, held=True)
            plain = _in_new_storage(kind, space, _optuna_storage, held=False)
            if ours is None or plain is None:
                print(f"{kind:11} left out: its server does not answer")
                break
            limit = LIMITS_MS.get(kind)
            outcome = "" if limit is None or ops < 500 else f"{limit:.0f}"
            if outcome and limit is not None:
                outcome += " kept" if 1e3 * ours <= limit else " MISSED"
            print(
                f"{kind:11} {ops:4} {1e3 * ours:8.1f} {1e3 * plain:9.1f} {ours / plain:7.3f}  "
                f"{outcome}",
                flush=True,
            )


def _optuna_storage(address: str) -> BaseStorage | str:
    """A storage with Optuna's own settings."""
    if address.startswith("redis:"):
        return JournalStorage(JournalRedisBackend(address))
    if "://" in address:
        # The drivers that open_storage takes where several are installed.
        address = address.replace("postgresql://", "postgresql+psycopg2://")
        return address.replace("mysql://", "mysql+pymysql://")
    return JournalStorage(JournalFileBackend(address))


def _in_new_storage(
    kind: str, space: TuningSpace, opener: Callable[[str], BaseStorage | str], *, held: bool
) -> float | None:
    with (
        tempfile.TemporaryDirectory() as directory,
        new_storage(kind, Path(directory)) as address,
    ):
        if address is None:
            return None
        sampler = RandomQuantSampler(space) if held else optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(storage=opener(address), direction="maximize", sampler=sampler)
        times = []
        for _ in range(TRIALS if held else PLAIN_TRIALS):
            start = time.perf_counter()
            trial = study.ask()
            if held:
                with buffered_writes(trial):
                    value = _trial(trial, space)
            else:
                value = _trial(trial, space, by_optuna=True)
            study.tell(trial, value)
            times.append(time.perf_counter() - start)
        return median(times)


def _trial(trial: optuna.Trial, space: TuningSpace, *, by_optuna: bool = False) -> float:
    if by_optuna:
        params = {p.name: trial.suggest_categorical(p.name, p.choices) for p in space.parameters}
        config = space.config_from_params(params)
    else:
        config = space.suggest(trial)
    trial.set_user_attr("fallback_ops", len(config.fallback_ops))
    trial.set_user_attr("fingerprint", config.key)
    trial.set_user_attr("loss", 0.0)
    trial.set_constraint("accuracy", 0.0)
    trial.set_constraint("quantized", 0.0)
    return metric(config)
