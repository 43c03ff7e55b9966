"""A process of its own tunes the fake model on a shared journal, and logs evaluations."""

from __future__ import annotations

import os
from pathlib import Path
import time

from fake_backend import FakeBackend
from fake_backend import FakeModel

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion


def new_backend() -> FakeBackend:
    damage = {"a": 0.02, "b": 0.15, "c": 0.0, "d": 0.03, "e": 0.2, "f": 0.0}
    return FakeBackend(damage, duplicates=["c", "f"])


def run(folder: Path) -> str:
    """Tune; the log gets a line for each evaluation."""

    def evaluate(model: FakeModel) -> float:
        time.sleep(0.02)
        with os.fdopen(os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as f:
            f.write(f"{model.fingerprint}\n")
        return model.accuracy

    result = tune(
        backend=new_backend(),
        evaluate=evaluate,
        storage=folder / "journal",
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.06),
        tuning_criterion=TuningCriterion(timeout=None, max_trials=None, strategy="basic"),
    )
    return f"{result.met} {sorted(result.fallback_ops)} {result.stopped_because}"


def write(folder: str) -> None:
    """What a process of its own does: it tunes, and writes what it has found."""
    (Path(folder) / f"found-{os.getpid()}").write_text(run(Path(folder)))
