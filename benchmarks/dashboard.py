"""What publishing to optuna-dashboard takes of a search, and what its pages weigh.

Building and evaluating a model takes no time here, so the share of a real search is far smaller.
Models are uploaded as well; each has a few kilobytes.

    python -m benchmarks dashboard
    OPS=500 TRIALS=1000 python -m benchmarks dashboard    # twenty minutes
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools
import hashlib
import json
import os
from pathlib import Path
import random
import tempfile
import time
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
from optuna.artifacts import FileSystemArtifactStore

from benchmarks.spaces import make_space
from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.backends.base import OpRuns
from optuna_quant.dashboard import PublishToDashboard
from optuna_quant.dashboard import ShownStorage
from optuna_quant.data.inputs import InputSpec
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.storages.open import open_storage


OPS = tuple(map(int, os.environ.get("OPS", "20,200,500").split(",")))
TRIALS = int(os.environ.get("TRIALS", "100"))


@dataclass(frozen=True)
class _Model:
    config: QuantConfig

    inputs = (InputSpec("x", np.dtype(np.float64), (None, 1)),)
    outputs = ("y",)

    def run(self, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        return [feed["x"]]

    @property
    def nbytes(self) -> int:
        return 4000 * len(self.config.ops) - 3000 * len(self.config.quantized_ops)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.config.to_json().encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.config.to_json())


class SyntheticBackend:
    """Builds models that do nothing; quantizing an op costs a known part of the accuracy."""

    def __init__(self, ops: int) -> None:
        rng = random.Random(0)
        self._space = make_space(ops)
        self.damage = {t.name: 0.1 / ops * rng.random() for t in self._space.tunables}

    def capability(self) -> Capability:
        ops = [OpCapability(t.name, t.op_type, t.options) for t in self._space.tunables]
        return Capability(tuple(ops))

    def tuning_space(self, **kwargs: Any) -> TuningSpace:
        return TuningSpace.from_capability(self.capability(), **kwargs)

    def quantize(self, config: QuantConfig) -> _Model:
        return _Model(config)

    def fingerprint(self, config: QuantConfig) -> str:
        return _Model(config).fingerprint

    def executed(self, config: QuantConfig) -> dict[str, OpRuns]:
        return {op: OpRuns("Conv") for op in config.ops}

    def accuracy(self, model: _Model) -> float:
        return 0.9 - sum(self.damage[op] for op in model.config.quantized_ops)


def run(cases: Path | None) -> None:
    print(f"{TRIALS} trials; seconds, what publishing takes of them, and the end of the search")
    print(
        f"{'storage':8} {'ops':>4} {'search':>8} {'ms a trial':>12} {'share':>7} {'end':>6}"
        f"   {'page, stock':>14} {'page, ours':>14}"
    )
    for kind, address in (("journal", "{}/s.journal"), ("sqlite", "sqlite:///{}/s.db")):
        for ops in OPS:
            with tempfile.TemporaryDirectory() as folder:
                _search(kind, ops, address.format(folder), folder)


def _search(kind: str, ops: int, address: str, folder: str) -> None:
    store = FileSystemArtifactStore(f"{folder}/artifacts")
    Path(folder, "artifacts").mkdir()
    publisher = PublishToDashboard(interval=0, artifact_store=store)
    spent = {name: _timed(publisher, name) for name in ("annotate", "offer", "finish")}
    backend, notes = SyntheticBackend(ops), [0.0]
    called = _Adding(publisher, notes)
    started = time.perf_counter()
    tune(
        backend=backend,
        evaluate=backend.accuracy,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.05),
        strategy="random",
        strategy_kwargs={"fallback": True},
        max_trials=TRIALS,
        timeout=None,
        storage=address,
        callbacks=[called],
    )
    end = spent["finish"][0]
    total = time.perf_counter() - started - end
    during = spent["annotate"][0] + spent["offer"][0] + notes[0]
    stock, ours = _page(address, False), _page(address, True)
    print(
        f"{kind:8} {ops:4} {total:8.2f} "
        f"{1e3 * during / TRIALS:12.2f} {100 * during / total:6.2f}% {end:6.2f}"
        f"   {stock[0] / 1e6:6.1f} MB {stock[1]:5.1f} s {ours[0] / 1e6:5.1f} MB {ours[1]:5.1f} s",
        flush=True,
    )


class _Adding:
    """The publisher, whose calls after trials are timed."""

    def __init__(self, publisher: PublishToDashboard, seconds: list[float]) -> None:
        self.begin, self.offer = publisher.begin, publisher.offer
        self.annotate, self.finish = publisher.annotate, publisher.finish
        self._publisher, self._seconds = publisher, seconds

    def __call__(self, *args: Any) -> None:
        started = time.perf_counter()
        self._publisher(*args)
        self._seconds[0] += time.perf_counter() - started


def _timed(publisher: PublishToDashboard, name: str) -> list[float]:
    seconds, method = [0.0], getattr(publisher, name)

    @functools.wraps(method)
    def timed(*args: Any) -> None:
        started = time.perf_counter()
        method(*args)
        seconds[0] += time.perf_counter() - started

    setattr(publisher, name, timed)
    return seconds


def _page(address: str, ours: bool) -> tuple[int, float]:
    """The bytes and the processor time of the data of a study's page."""
    import optuna_dashboard

    storage = open_storage(address, heartbeat=False)
    app: Callable[..., Any] = optuna_dashboard.wsgi(ShownStorage(storage) if ours else storage)
    number = 0 if "journal" in address else 1
    environ: dict[str, Any] = {"PATH_INFO": f"/api/studies/{number}"}
    setup_testing_defaults(environ)
    started = time.process_time()
    body = b"".join(app(environ, lambda *_: None))
    assert json.loads(body)["trials"]
    return len(body), time.process_time() - started
