"""What a worker process of the parallel tests does."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
import json
import os
from pathlib import Path
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import services
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import blocks_of
from spaces import make_space

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.strategies import needs_sensitivity


LOSSES = {f"op{i}": (i * 5) % 9 / 10 for i in range(9)}
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.4)

# What follows the name of a strategy that is given blocks, and no sensitivity.
WITH_BLOCKS = " with blocks"

# Plans: with any number of workers they evaluate what they do alone.
STAGED = ["conservative", "basic", "basic with blocks", "mse", "mse_v2", "hawq_v2"]
# Those that try the whole space, each configuration once, where they are given `fallback=True`. Of
# others without a plan the tests would ask too much: they need a list of their own.
ENUMERATING = ["exhaustive", "random", "tpe", "bayesian"]
# Those that learn a model: what they try depends on who else is at work.
LEARNING = ["auto", "surrogate", "surrogate with blocks"]
# Those that end with an answer of their own.
ANSWERING = STAGED + LEARNING
NAMES = ANSWERING + ENUMERATING
# Those with tests of their own: the front has no single answer (test_pareto.py).
OTHERS = ["pareto"]

HAVE_ANSWERS = (StagedQuantSampler, SurrogateQuantSampler)

# What a sampler gives beyond its strategy.
EXTRA_STAGES = (record.EXHAUSTED_STAGE, record.SPARE_STAGE)


def metric(config: QuantConfig) -> float:
    """The metric of a configuration; the FP32 model has 1."""
    ops = config.ops
    return 1.0 - sum(
        LOSSES[op] * (0.3 if ops[op] == STATIC_TENSOR else 1.0) for op in config.quantized_ops
    )


def sensitivity(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    """What scores ops, cheaply."""
    return {op: LOSSES[op] for op in ops}


def sampler_of(
    name: str, *, when_blocked: str = "wait", **options: Any
) -> tuple[TuningSpace, QuantSampler]:
    """A strategy's space and sampler; the name may end with " with blocks"."""
    space = make_space(3, (STATIC, STATIC_TENSOR, FP32))
    if name in ANSWERING:
        space = make_space(4)
    if name in STAGED:
        options["when_blocked"] = when_blocked
    strategy = name.removesuffix(WITH_BLOCKS)
    if strategy != name:
        options["blocks"] = blocks_of(space)
    if needs_sensitivity(strategy) or name == "surrogate":
        options["sensitivity"] = sensitivity
    if name in ("tpe", "bayesian"):
        options["n_startup_trials"] = 4
    return space, strategies()[strategy](space, criterion=CRITERION, seed=7, **options)


def key_of(space: TuningSpace, trial: FrozenTrial) -> str:
    key = space.key_from_params(trial.params)
    assert key is not None, trial
    return key


def evaluated(study: optuna.Study, space: TuningSpace) -> set[str]:
    """The keys of what a study's strategy has evaluated."""
    return {
        key_of(space, trial)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if TrialView(trial).claim.stage not in EXTRA_STAGES
    }


def answer(study: optuna.Study, space: TuningSpace, sampler: QuantSampler) -> set[str]:
    """The keys of the best answers to the search."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        config = space.config_from_params(trial.params)
        # Strategies of ENUMERATING try no fallback here, but for what they give at their end.
        proposed = isinstance(sampler, HAVE_ANSWERS) or not config.fallback_ops
        met = CRITERION.violation(trial.value, metric(space.fp32())) <= 0
        if met and proposed and config.quantized_ops and sampler.is_answer(study, trial):
            found.append((trial.value, config.key))
    best = max((value for value, _ in found), default=None)
    return {key for value, key in found if value == best}


@cache
def undisturbed(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """What one process evaluates, and its answer."""
    space, sampler = sampler_of(name)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(lambda trial: metric(space.suggest(trial)), n_trials=1)
    found = answer(study, space, sampler)
    assert found, "a search without an answer tests less"
    return frozenset(evaluated(study, space)), frozenset(found)


# The log of the workers, which outlives them.


class Log:
    """Lines that processes add to one file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, what: str, **fields: Any) -> None:
        """Add a line; a process that is killed the next moment has added it."""
        line = {"what": what, "pid": os.getpid(), "time": time.monotonic(), **fields}
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)

    def read(self, what: str, **fields: Any) -> list[dict[str, Any]]:
        """The lines of a kind."""
        if not self.path.exists():
            return []
        # Another process may be in the middle of the last one.
        whole = self.path.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        wanted = {"what": what, **fields}
        return [line for line in lines if wanted.items() <= line.items()]

    def meet(self, place: str, count: int) -> None:
        """Wait until so many processes are here."""
        self.add("here", place=place)
        deadline = time.monotonic() + 60
        while len(self.read("here", place=place)) < count:
            assert time.monotonic() < deadline, f"others do not come to {place}"
            time.sleep(0.005)


def evaluation(
    space: TuningSpace, log: Log, *, seconds: float, together: int = 1
) -> Callable[[optuna.Trial], float]:
    """An objective that takes its time, and logs when it begins and ends.

    The first evaluations of a study go on until those of so many processes run at once.
    """

    workers: set[int] = set()

    def objective(trial: optuna.Trial) -> float:
        with buffered_writes(trial):
            config = space.suggest(trial)
        what = {"study": trial.study.study_name, "number": trial.number, "key": config.key}
        log.add("begin", **what)
        deadline = time.monotonic() + 60
        while len(workers) < together:
            found = log.read("begin", study=trial.study.study_name)
            workers.update(line["pid"] for line in found)
            assert time.monotonic() < deadline, f"{workers} are alone in {what}"
            time.sleep(0.005)
        time.sleep(seconds)
        log.add("end", **what)
        return metric(config)

    return objective


def log_told(log: Log) -> Callable[[optuna.Study, FrozenTrial], None]:
    """A callback that logs what was told."""

    def callback(study: optuna.Study, trial: FrozenTrial) -> None:
        log.add("told", study=study.study_name, number=trial.number, value=trial.value)

    return callback


def work_through(
    url: str, log: str, *, cases: Sequence[tuple[str, str]], workers: int, seconds: float
) -> None:
    """Take part in one study after the other, each until its strategy has nothing left."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lines = Log(log)
    storage = services.open_as_users_do(url)
    for name, when_blocked in cases:
        space, sampler = sampler_of(name, when_blocked=when_blocked)
        study = optuna.create_study(
            storage=storage,
            study_name=f"{name} {when_blocked}",
            direction="maximize",
            sampler=sampler,
            load_if_exists=True,
        )
        lines.meet(study.study_name, workers)
        # In a plan without speculation there are two: the baseline and the first stage.
        together = min(workers, workers if name in ENUMERATING else 2)
        objective = evaluation(space, lines, seconds=seconds, together=together)
        while not sampler.is_exhausted(study):
            study.optimize(objective, n_trials=1, callbacks=[log_told(lines)])
