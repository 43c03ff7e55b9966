"""The cost model: how well, how steadily and how quickly it tells what a configuration costs.

One thread. ``rank``: Spearman's rank correlation of predicted and measured time over 20 random
configurations that are measured in turn, in two sessions each ("noise" where they differ by no
more). ``sessions``: that between the two sessions, which is what a perfect table could reach at
most. ``again``: that between two tables made one after the other, and the largest difference of a
prediction. ``error``: the median relative error of a prediction. ``table``: the time to make a
table, and over that of evaluating the FP32 model. ``size``: the largest relative error of a size.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from functools import partial
import logging
from pathlib import Path
import time
from typing import Any
import warnings

import numpy as np
import onnxruntime
from scipy.stats import spearmanr

from benchmarks.cases import DEMO
from benchmarks.real_cases import VARIABLE
from benchmarks.real_cases import real_cases
from optuna_quant import DataEvaluation
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.costs.classes import random_configs
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.evaluation.function import FunctionEvaluation


_CONFIGS = 20
_SECONDS = 12.0


def run(cases: Path | None) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if cases is not None and not real_cases(cases):
        print(f"without the real models: {VARIABLE} names no folder with them")
    print(
        f"{'case':20} {'ops':>4} {'FP32':>9} {'INT8':>5} {'rank':>6} {'sessions':>8} "
        f"{'spread':>7} {'noise':>7} {'error':>6} {'again':>6} {'differ':>7} "
        f"{'table':>8} {'evals':>6} {'size':>8}"
    )
    for name, backend, evaluate in _cases(cases):
        print(f"{name:20} {_row(backend, evaluate)}", flush=True)


def _cases(
    cases: Path | None,
) -> Iterator[tuple[str, OnnxRuntimeBackend, Callable[[Any], object]]]:
    folders = [DEMO]
    if cases is not None:
        folders += sorted(folder.parent for folder in cases.glob("*/model.onnx"))
    for folder in folders:
        calibration, data = np.load(folder / "calib.npz"), np.load(folder / "eval.npz")
        model = folder / "model.onnx"
        name = onnxruntime.InferenceSession(model).get_inputs()[0].name
        backend = _backend(model, {name: _prepared(calibration, calibration)})
        labels = data["labels" if "labels" in data.files else "y"]
        measure = DataEvaluation({name: _prepared(data, calibration), "labels": labels})
        yield folder.name, backend, measure
    for name, given in real_cases(cases).items():
        backend = _backend(given["model"], given["calibration_data"])
        if "evaluate" in given:
            yield f"real/{name}", backend, FunctionEvaluation(given["evaluate"])
        else:
            size = given.get("batch_size")
            measure = DataEvaluation(given["data"], given["metric"], batch_size=size)
            yield f"real/{name}", backend, measure


def _prepared(data: Any, calibration: Any) -> np.ndarray:
    x = data["x"]
    if "mean" not in calibration.files:
        return x
    x = (x.astype(np.float32) / 255 - calibration["mean"]) / calibration["std"]
    return x.astype(np.float32)


def _backend(model: Path, calibration: object) -> OnnxRuntimeBackend:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return OnnxRuntimeBackend(model, calibration_data=calibration, session_options=options)


def _row(backend: OnnxRuntimeBackend, evaluate: Callable[[Any], object]) -> str:
    space = backend.tuning_space()
    backend.calibrate()
    fp32 = backend.quantize(space.fp32())
    evaluate(fp32)
    start = time.perf_counter()
    evaluate(fp32)
    evaluation = time.perf_counter() - start
    tables = [backend.costs(space) for _ in range(2)]
    configs = random_configs(space, _CONFIGS, seed=1000)
    measured = [space.fp32(), space.default(), *configs]
    models = [backend.quantize(config) for config in measured]
    # Two sessions of each: the same model may be quicker in one of them.
    sessions = [backend.session(config) for _ in range(2) for config in measured]
    preview = backend.calibration_preview(1)
    assert preview is not None
    timings = time_interleaved(
        [partial(session.run, None, preview[1][0]) for session in sessions],
        rounds=40,
        seconds=_SECONDS,
        clock=time.thread_time,
    )
    both = np.array([timing.quickest for timing in timings]).reshape(2, -1)
    seconds = both.mean(axis=0)
    noise = float(np.sqrt(np.mean(np.log(both[0] / both[1]) ** 2) / 4))
    ceiling = spearmanr(*both[:, 2:]).statistic
    spread = float(np.std(seconds[2:]) / np.mean(seconds[2:]))
    first, second = (
        np.array([table.table("latency").cost(config) for config in configs]) for table in tables
    )
    rank = f"{spearmanr(first, seconds[2:]).statistic:.2f}" if spread > 2 * noise else "noise"
    error = np.median(np.abs(first / seconds[2:] - 1))
    again = spearmanr(first, second).statistic
    differ = np.max(np.abs(first / second - 1))
    size = max(
        abs(tables[0].table("size").cost(config) / model.nbytes - 1)
        for config, model in zip(measured, models, strict=True)
    )
    took = min(table.seconds for table in tables)
    return (
        f"{len(space.tunables):4} {1e3 * seconds[0]:7.2f}ms {seconds[1] / seconds[0]:5.2f} "
        f"{rank:>6} {ceiling:8.2f} {spread:7.1%} {noise:7.1%} "
        f"{error:6.1%} {again:6.2f} {differ:7.1%} {took:7.1f}s "
        f"{took / evaluation:6.1f} {size:8.3%}"
    )
