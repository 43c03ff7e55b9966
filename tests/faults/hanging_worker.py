"""Run as a process of its own: tunes the fake model, and hangs in an evaluation if told to."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time

from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
from samplers.parallel_worker import Log
import services

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation import timeout as evaluation_timeout
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion


def sleep() -> None:
    time.sleep(600)


def lock() -> None:
    held = threading.Lock()
    held.acquire()
    held.acquire()


def child() -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(100)"], check=False)


def mutex() -> None:
    """A call into C that never comes back, and that no signal ends."""
    memory = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(memory)
    ctypes.CDLL(None).pthread_mutex_lock(memory)


def work(
    url: str,
    log: str,
    *,
    hang: str | None = None,
    at: str = "default",
    timeout: float | None = None,
    n_jobs: int = 1,
) -> None:
    """Tune.

    Args:
        url:
            The storage.
        log:
            The path of the log.
        hang:
            How an evaluation hangs; :obj:`None` if none does.
        at:
            Which one hangs: ``"default"``, or ``"fp32"``.
        timeout:
            The timeout of evaluations.
        n_jobs:
            How many threads evaluate.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    evaluation_timeout._SHORTEST_GRACE_SECONDS = 0.2
    lines = Log(log)

    def evaluate(model: FakeModel) -> float:
        quantized = len(model.config.quantized_ops)
        lines.add("evaluation", key=model.config.key, quantized=quantized)
        if hang is not None and quantized == {"default": 4, "fp32": 0}[at]:
            lines.add("hangs")
            {"sleep": sleep, "lock": lock, "child": child, "mutex": mutex}[hang]()
        return model.accuracy

    try:
        result = tune(
            backend=FakeBackend({"a": 0.02, "b": 0.15, "c": 0.03, "d": 0.2}),
            evaluate=evaluate,
            storage=services.open_as_users_do(url),
            study_name="study",
            accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.06),
            tuning_criterion=TuningCriterion(strategy="basic"),
            evaluation_timeout=timeout,
            n_jobs=n_jobs,
        )
    except ValueError as error:
        lines.add("error", text=str(error))
    else:
        lines.add("result", met=result.met, ops=sorted(result.fallback_ops))
