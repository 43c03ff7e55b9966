"""Run as a process of its own: a search on a shared journal in which nothing is to be gained."""

from __future__ import annotations

import os
from pathlib import Path
import sys
import time

from costed_backend import CostedBackend
from fake_backend import FakeModel
import optuna

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.api import tune


def run(folder: Path) -> str:
    """Tune; the log gets a line for each evaluation."""

    def evaluate(model: FakeModel) -> float:
        time.sleep(0.2)
        with os.fdopen(os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as f:
            f.write(f"{model.fingerprint}\n")
        return model.accuracy

    result = tune(
        backend=CostedBackend({"a": 0.0, "b": 0.0}, {"a": 2.0, "b": 2.0}),
        evaluate=evaluate,
        storage=folder / "journal",
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.1),
    )
    return f"{result.stopped_because} {result.is_fp32} {result.metric}"


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(run(Path(sys.argv[1])))
