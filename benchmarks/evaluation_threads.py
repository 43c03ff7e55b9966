"""Two batches at once, which share the cores, beside one batch at a time on all cores.

Samples per second of one INT8 model and of the FP32 model, and the time of a whole search.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.cases import DEMO
from benchmarks.cases import Case
from benchmarks.cases import load_case
from benchmarks.early_stopping import tune_task
from benchmarks.strategies import TASKS
from benchmarks.strategies import Task
from benchmarks.timing import alternating
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.evaluation.labelled import DataEvaluation


THREADS = (1, 2)
SAMPLES = 2000


def run(cases: Path | None) -> None:
    print(f"{'case':18} {'':6} {'one':>10} {'two':>10}  speedup")
    for task in TASKS:
        if task.folder and cases is None:
            continue
        case = load_case(cases / task.folder if cases and task.folder else DEMO)
        for name in ("INT8", "FP32"):
            one, two = alternating(*(_evaluate(case, name, threads) for threads in THREADS))
            samples = min(SAMPLES, len(case.y))
            rates = f"{samples / one:8.0f}/s {samples / two:8.0f}/s"
            print(f"{case.name:18} {name:6} {rates}  {one / two:.2f}", flush=True)
        one, two = alternating(*(_search(case, task, threads) for threads in THREADS), repeat=3)
        print(f"{case.name:18} search {one:9.2f}s {two:9.2f}s  {one / two:.2f}", flush=True)


def _evaluate(case: Case, name: str, threads: int) -> Callable[[], None]:
    calibration = [{case.input_name: case.calibration}]
    backend = OnnxRuntimeBackend(case.model, calibration_data=calibration)
    space = backend.tuning_space()
    model = backend.quantize(space.default() if name == "INT8" else space.fp32())
    x, y = case.x[:SAMPLES], case.y[:SAMPLES]
    evaluation = DataEvaluation({case.input_name: x, "labels": y}, threads=threads)

    def evaluate() -> None:
        for _ in evaluation.scores(model, np.arange(len(y))):
            pass

    return evaluate


def _search(case: Case, task: Task, threads: int) -> Callable[[], object]:
    return lambda: tune_task(case, task, "auto", evaluation_threads=threads)
