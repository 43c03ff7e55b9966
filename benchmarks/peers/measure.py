"""What a model is worth: its metric, what runs as integers, its time and its size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
import os
from pathlib import Path
import re
import time
from typing import Any

import onnxruntime

from benchmarks.peers.inside.task import Task
from optuna_quant import AccuracyCriterion
from optuna_quant.backends.onnxruntime.executed.optimized import optimize
from optuna_quant.costs.timing import measure_interleaved


BATCH_SIZES = (1, 32)
_PROVIDERS = ["CPUExecutionProvider"]
_SECONDS = 3.0
_LEAST_ROUNDS, _MOST_ROUNDS = 31, 401

_INTEGER = re.compile(
    r"QLinearConv|QLinearMatMul|QGemm|QAttention|ConvInteger\w*|MatMulInteger\w*"
    r"|DynamicQuantizeMatMul"
)
_FLOAT = re.compile(
    r"Conv|ConvTranspose|(Fused|Nhwc)\w*Conv|(Fused)?MatMul\w*|(Fused)?Gemm|Attention"
)


def measure_quality(task: Task, path: Path) -> dict[str, Any]:
    """Evaluate a model on all evaluation samples and look at what the runtime runs for it.

    Returns:
        ``metric``, ``baseline``, ``loss`` (as the criterion defines it), ``met``, ``integer`` and
        ``ops`` (of the convolutions and matrix products that run, how many there are and how many
        of them compute on integers), ``bytes`` and ``fp32_bytes``.
    """
    baseline = task.metric(_session(task.model))
    metric = task.metric(_session(path))
    criterion = AccuracyCriterion(
        criterion="relative" if task.relative else "absolute", tolerable_loss=task.tolerable_loss
    )
    integer, ops = integer_ops(path)
    return {
        "metric": metric,
        "baseline": baseline,
        "loss": criterion.loss(metric, baseline),
        "met": bool(criterion.meets(metric, baseline)),
        "integer": integer,
        "ops": ops,
        "bytes": path.stat().st_size,
        "fp32_bytes": Path(task.model).stat().st_size,
    }


def measure_time(task: Task, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The times of models over that of the FP32 model: one thread, all in turn, medians.

    Returns:
        For each model ``ratio_N`` and ``fp32_ms_N`` for the batch sizes N, and ``load``, the
        machine's load then.
    """
    facts: list[dict[str, Any]] = [{} for _ in paths]
    sessions = [_session(path) for path in (task.model, *paths)]
    for size in BATCH_SIZES:
        feed = {task.input_name: task.x[:size]}
        runs = [partial(session.run, None, feed) for session in sessions]
        start = time.perf_counter()
        for run in runs:
            run()
        rounds = int(_SECONDS * len(runs) / (time.perf_counter() - start))
        rounds = min(max(rounds, _LEAST_ROUNDS), _MOST_ROUNDS)
        fp32, *others = measure_interleaved(runs, rounds=rounds)
        for found, seconds in zip(facts, others, strict=True):
            found[f"ratio_{size}"] = seconds / fp32
            found[f"fp32_ms_{size}"] = 1e3 * fp32
            found["load"] = os.getloadavg()[0]
    return facts


def integer_ops(path: Path) -> tuple[int, int]:
    """How many convolutions and matrix products run as integer kernels, and how many there are."""
    optimized = optimize(str(path), size=path.stat().st_size, providers=_PROVIDERS)
    assert optimized.graph is not None
    kernels = [node.op_type for node in optimized.graph.node]
    integer = [kernel for kernel in kernels if _INTEGER.fullmatch(kernel)]
    floats = [k for k in kernels if _FLOAT.fullmatch(k) and not _INTEGER.fullmatch(k)]
    return len(integer), len(integer) + len(floats)


def _session(model: str | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=_PROVIDERS)
