"""Fake models that are evaluated sample by sample: what quantizing an op breaks is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from functools import cache
import os
import signal
import threading
import time
from typing import Any
import zlib

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
from numpy.typing import NDArray
import optuna
from samplers.parallel_worker import WITH_BLOCKS
from samplers.parallel_worker import Log
import services
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import blocks_of

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.sequential import EarlyStopping
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.baseline import get_baseline
from optuna_quant.tuning.strategies import needs_sensitivity


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
STOPPING = EarlyStopping()
DAMAGE = {"op0": 0.01, "op1": 0.12, "op2": 0.0, "op3": 0.02, "op4": 0.2, "op5": 0.015}

# What one option does to the damage of another.
_PART = {STATIC_TENSOR: 0.3}


@cache
def hardness(count: int) -> NDArray[np.float64]:
    """How hard each sample is; nothing may be written into it."""
    return np.random.default_rng(1).random(count)


@cache
def _right(count: int) -> NDArray[np.bool_]:
    """Which samples FP32 gets right."""
    return np.random.default_rng(2).random(count) > 0.15 * (hardness(count) < 0.5)


@cache
def _first_broken(op: str, count: int, breaks: str) -> NDArray[np.intp]:
    """The samples, those first that an op breaks first."""
    hard = hardness(count)
    noise = np.random.default_rng(zlib.crc32(op.encode())).random(count)
    place = {"hard": hard + 0.3 * noise, "easy": -hard, "any": noise}[breaks]
    return np.argsort(place, kind="stable")


class SampleScores:
    """Scores of 0 and 1: each quantized op breaks a fixed part of what FP32 gets right.

    Args:
        damage:
            The part of the samples that quantizing each op breaks, by op name.
        samples:
            How many samples there are.
        breaks:
            Which samples: the ``"hard"`` ones mostly, as a real model does, the ``"easy"`` ones
            only, or ``"any"``.
        margins:
            Whether the baseline says how hard each sample is.
        batch:
            How many samples are evaluated at a time.
        higher_is_better:
            Otherwise a score of 1 is the worst.
        log:
            Where to write what is evaluated, for tests with several processes.
        seconds:
            How long a batch takes.
        kill_at:
            At which sample of a quantized model this process kills itself.
    """

    def __init__(
        self,
        damage: Mapping[str, float],
        *,
        samples: int = 1000,
        breaks: str = "hard",
        margins: bool = True,
        batch: int = 50,
        higher_is_better: bool = True,
        log: Log | None = None,
        seconds: float = 0.0,
        kill_at: int | None = None,
    ) -> None:
        self.damage = damage
        self.samples = samples
        self.bounds: tuple[float, float] | None = (0.0, 1.0)
        # How often each sample was evaluated, by the model's fingerprint.
        self.seen: dict[str, NDArray[np.int64]] = {}
        self.calls = Counter[str]()
        self._breaks = breaks
        self._margins = hardness(samples) if margins else None
        self._batch = batch
        self._higher_is_better = higher_is_better
        self._log = log
        self._seconds = seconds
        self._kill_at = kill_at
        self._lock = threading.Lock()

    def scores_of(self, config: QuantConfig) -> NDArray[np.float64]:
        """The scores of all samples, in the order of the data."""
        count = self.samples
        right = _right(count).copy()
        for op in config.quantized_ops:
            part = self.damage[op] * _PART.get(config.ops[op], 1.0)
            right[_first_broken(op, count, self._breaks)[: round(part * count)]] = False
        return (right if self._higher_is_better else ~right).astype(np.float64)

    def metric(self, config: QuantConfig) -> float:
        """The mean of all."""
        return float(self.scores_of(config).sum() / self.samples)

    def __call__(self, model: FakeModel) -> float:
        self.calls[model.fingerprint] += 1
        return self.metric(model.config)

    def scores(self, model: FakeModel, indices: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
        found = self.scores_of(model.config)
        # A process that takes part in a study compares a few of the FP32 model's scores.
        compares = not model.config.quantized_ops and len(indices) <= 32 < self.samples
        for start in range(0, len(indices), self._batch):
            some = indices[start : start + self._batch]
            with self._lock:
                if not compares:
                    counts = self.seen.setdefault(model.fingerprint, np.zeros(self.samples, int))
                    np.add.at(counts, some, 1)
            if self._log is not None and not compares:
                self._log.add("samples", model=model.fingerprint, indices=some.tolist())
            if self._seconds:
                time.sleep(self._seconds)
            if self._kill_at is not None and model.config.quantized_ops:
                self._kill_at -= len(some)
                if self._kill_at <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield found[some]

    def scores_and_margins(
        self, model: FakeModel, indices: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
        start = 0
        for some in self.scores(model, indices):
            chosen = indices[start : start + len(some)]
            start += len(some)
            yield some, None if self._margins is None else self._margins[chosen]

    @property
    def evaluated(self) -> int:
        """How many samples were evaluated, of all models together."""
        return sum(int(counts.sum()) for counts in self.seen.values())

    @property
    def most_repeats(self) -> int:
        """How often the sample of a model was evaluated that was evaluated most."""
        return max((int(counts.max()) for counts in self.seen.values()), default=0)

    def seen_of(self, fingerprint: str) -> int:
        """How many samples of a model were evaluated."""
        return int(np.count_nonzero(self.seen.get(fingerprint, 0)))


def population_of(
    evaluation: SampleScores, backend: FakeBackend, *, seed: int = 0, **kwargs: Any
) -> Population:
    """The population that a study of this model has."""
    fp32 = backend.tuning_space().fp32()
    levels = difficulty_levels(evaluation._margins, evaluation.samples)
    return Population(
        order=SampleOrder.draw(levels, seed=seed),
        baseline=evaluation.scores_of(fp32),
        bounds=(0.0, 1.0),
        **kwargs,
    )


def backend_of(damage: Mapping[str, float] = DAMAGE, **kwargs: Any) -> FakeBackend:
    """A backend whose ops have two quantized options."""
    return FakeBackend(damage, options=(STATIC, STATIC_TENSOR, FP32), **kwargs)


def sampler_of(
    name: str,
    backend: FakeBackend,
    *,
    criterion: AccuracyCriterion = CRITERION,
    **options: Any,
) -> QuantSampler:
    """The sampler of a strategy; the name may end with " with blocks"."""
    space, strategy = backend.tuning_space(), name.removesuffix(WITH_BLOCKS)
    if strategy != name:
        options["blocks"] = blocks_of(space)
    if needs_sensitivity(strategy):
        options["sensitivity"] = lambda config, ops: {op: backend.damage[op] for op in ops}
    if name in ("tpe", "bayesian"):
        options["n_startup_trials"] = 4
    return strategies()[strategy](space, criterion=criterion, seed=7, **options)


def search(
    study: optuna.Study, objective: QuantObjective, *, most: int = 400, n_jobs: int = 1
) -> None:
    """Go on until the strategy has nothing left; so many trials are taken for an endless loop."""
    sampler = study.sampler
    assert isinstance(sampler, QuantSampler)
    while not sampler.is_exhausted(study):
        taken = len(study.get_trials(deepcopy=False))
        assert taken < most, f"after {taken} trials the search has not ended"
        study.optimize(objective, n_trials=n_jobs, n_jobs=n_jobs)


def work(
    url: str,
    log: str,
    name: str,
    *,
    study_name: str = "study",
    when_blocked: str | None = None,
    damage: Mapping[str, float] = DAMAGE,
    seconds: float = 0.0,
    kill_at: int | None = None,
    samples: int = 1000,
) -> None:
    """What a worker process does: search until the strategy has nothing left."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = backend_of(damage)
    options = {} if when_blocked is None else {"when_blocked": when_blocked}
    study = optuna.create_study(
        storage=services.open_as_users_do(url),
        study_name=study_name,
        direction="maximize",
        sampler=sampler_of(name, backend, **options),
        load_if_exists=True,
    )
    evaluation = SampleScores(
        damage, samples=samples, log=Log(log), seconds=seconds, kill_at=kill_at
    )
    objective = QuantObjective(
        backend, backend.tuning_space(), evaluation, CRITERION, stopping=STOPPING
    )
    search(study, objective)


def answers(study: optuna.Study, backend: FakeBackend) -> set[str]:
    """The keys of the quantized configurations that were evaluated in full and meet it."""
    baseline = get_baseline(study)
    assert baseline is not None and isinstance(study.sampler, QuantSampler)
    space = backend.tuning_space()
    return {
        space.config_from_params(trial.params).key
        for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        if CRITERION.meets(trial.values[0], baseline.value)
        and space.config_from_params(trial.params).quantized_ops
        and study.sampler.is_answer(study, trial)
    }
