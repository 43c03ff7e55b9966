"""What a worker process of the tests of shared values does."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from functools import lru_cache
from multiprocessing.synchronize import Barrier
import os
from pathlib import Path
import time

from fake_backend import FakeBackend
import optuna
from optuna.artifacts import FileSystemArtifactStore
import services
from spaces import make_space
from spaces import objective_of

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.compute_once import ComputeOnce


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
LOSSES = {"op0": 0.05, "op1": 0.3, "op2": 0.02, "op3": 0.2}

_barrier: list[Barrier] = []


def set_barrier(barrier: Barrier) -> None:
    """What a new process of the pool calls."""
    _barrier.append(barrier)


@lru_cache(maxsize=1)
def _opened(url: str, folder: Path) -> optuna.Study:
    """The study; a process opens it once for a test, whose folder that is."""
    return services.create(url)


def computation(log: Path, seconds: float = 0.0) -> Callable[[], bytes]:
    """Takes a while, gives a value of its own, and leaves a line in a file."""

    def compute() -> bytes:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return str(os.getpid()).encode()

    return compute


def race(url: str, name: str, log: Path) -> bytes:
    """Ask for a value at the same instant as the other processes."""
    study = _opened(url, log.parent)
    _barrier[0].wait(60)
    return ComputeOnce(study, name).get(computation(log, 0.05))


class SharingBackend(FakeBackend):
    """A fake backend whose calibration gives bytes, and leaves a line in a file."""

    def __init__(self, log: Path, *, key: str = "key", size: int = 100) -> None:
        super().__init__(2)
        self._log = log
        self._key = key
        self._size = size
        self.statistics: bytes | None = None

    def calibrate(self) -> None:
        if self.statistics is None:
            # Each calibration has other numbers, so that one can see whose they are.
            self.statistics = os.urandom(self._size)
            computation(self._log, 0.05)()

    def is_calibrated(self) -> bool:
        return self.statistics is not None

    def calibration_key(self) -> str:
        return self._key

    def export_calibration(self) -> bytes:
        self.calibrate()
        assert self.statistics is not None
        return b"fake" + self.statistics

    def import_calibration(self, data: bytes) -> None:
        if not data.startswith(b"fake"):
            raise ValueError("These are no statistics.")
        self.statistics = data.removeprefix(b"fake")


def calibrate(url: str, log: Path, store: Path | None) -> bytes | None:
    """Share a calibration at the same instant as the other processes."""
    study = _opened(url, log.parent)
    backend = SharingBackend(log, key=f"kept in {store}", size=50_000)
    artifacts = None if store is None else FileSystemArtifactStore(store)
    _barrier[0].wait(60)
    share_calibration(study, backend, artifact_store=artifacts)
    return backend.statistics


def hold(url: str, name: str, log: Path) -> None:
    """Compute a value for longer than any test runs."""
    ComputeOnce(services.create(url), name).get(computation(log, 600.0))


def search(url: str, log: Path) -> int:
    """Search by sensitivities together with the other processes; the number of trials of all."""
    space = make_space(4)

    def sensitivity(config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        computation(log, 0.2)()
        return {op: LOSSES[op] for op in ops}

    def metric(config: QuantConfig) -> float:
        return 1.0 - sum(LOSSES[op] for op in config.quantized_ops)

    sampler = MSEQuantSampler(space, criterion=CRITERION, sensitivity=sensitivity)
    study = services.create(url)
    study.sampler = sampler
    _barrier[0].wait(60)
    while not sampler.is_exhausted(study):
        study.optimize(objective_of(space, metric), n_trials=1)
    return len(study.trials)
