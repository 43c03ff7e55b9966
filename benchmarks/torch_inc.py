"""Modules tuned by Intel Neural Compressor 2.6 (FX) and for the PyTorch backend.

The cases of ``torch_cases``, one thread, with the same criterion and data, and an ``evaluate=``.
``met``: whether a quantized model was found (``FP32``: where nothing is better). ``evals``: calls
of the evaluation, that of FP32 included; of ours the samples that were run, over the evaluation
set. ``layers``: convolutions and Linear layers that run on integers, of all. ``ms``: the answer
on a batch of 64, ours compiled; Neural Compressor's runs as it is. ``/eager`` and ``/compiled``:
over FP32's time in the same process. ``CPU s``: of the search.

``INC_PYTHON``: a Python with ``torch==2.13.0 numpy==1.26.4 six "setuptools<81" onnx
neural-compressor==2.6``; without it there are ours alone. ``CASE`` chooses cases, separated by
commas; ``SECONDS``: for each search, default 600.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import time
from typing import Any

import torch
from torch import nn

from benchmarks.torch_cases import BATCH
from benchmarks.torch_cases import ModuleCase
from benchmarks.torch_cases import config_of
from benchmarks.torch_cases import module_cases
from benchmarks.torch_cases import tuned
from benchmarks.torch_stock import one_thread
from optuna_quant.costs.timing import time_interleaved


_SCRIPT = Path(__file__).parent / "peers" / "inside" / "tune_module_inc.py"
_ROUNDS = 60
_SECONDS = "600"


def run(cases: Path | None) -> None:
    """Print the table."""
    assert cases is not None
    print(
        f"{'case':20}{'tool':14}{'loss <=':>8}{'met':>5}{'loss':>8}{'evals':>7}{'layers':>9}"
        f"{'ms':>9}{'/eager':>8}{'/compiled':>10}{'CPU s':>8}"
    )
    with one_thread():
        for each in module_cases(cases):
            if "INC_PYTHON" in os.environ:
                print(_row("INC 2.6", each, _inc(cases / each.case.name, each)), flush=True)
            print(_row("optuna_quant", each, _ours(each)), flush=True)


def _row(tool: str, it: ModuleCase, found: dict[str, Any]) -> str:
    seconds = found["seconds"]
    answer = seconds.get("answer", seconds["compiled"])
    loss = "-" if found["loss"] is None else f"{found['loss']:.2%}"
    layers = sum(isinstance(each, nn.Conv2d | nn.Linear) for each in it.module.modules())
    return (
        f"{it.case.name:20}{tool:14}{it.tolerance:8.3f}{found['met']:>5}{loss:>8}"
        f"{found['evaluations']:7.2f}{found['quantized']:6}/{layers:2}{1e3 * answer:9.3f}"
        f"{answer / seconds['eager']:8.2f}{answer / seconds['compiled']:10.2f}"
        f"{found['cpu_seconds']:8.1f}"
    )


def _inc(folder: Path, it: ModuleCase) -> dict[str, Any]:
    command = [os.environ["INC_PYTHON"], str(_SCRIPT), str(folder), str(it.tolerance)]
    done = subprocess.run(
        [*command, os.environ.get("SECONDS", _SECONDS)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "met": "yes" if found["met"] else "no"}


def _ours(it: ModuleCase) -> dict[str, Any]:
    start = time.process_time()
    result = tuned(it, "latency", backend=it.backend)
    searched = time.process_time() - start
    config = config_of(result)
    answer = it.backend.quantize(config).compiled()
    fp32 = it.backend.quantize(it.in_floats(None)).compiled()
    x = it.x[:BATCH]

    def eager() -> object:
        with torch.no_grad():
            return it.module(x)

    timings = time_interleaved(
        [eager, it.timed(fp32), it.timed(answer)], rounds=_ROUNDS, seconds=30.0
    )
    named = zip(("eager", "compiled", "answer"), timings, strict=True)
    layers = {
        op.name
        for op in it.backend.capability().ops
        if op.op_type in ("Conv", "Conv2d", "Linear", "Gemm")
    }
    return {
        "met": "FP32" if result.is_fp32 else "yes" if result.met else "no",
        "loss": result.loss,
        "evaluations": result.full_evaluations,
        "quantized": sum(
            name in layers and option.mode not in ("fp32", "bf16", "fp16")
            for name, option in config.ops.items()
        ),
        "cpu_seconds": searched,
        "seconds": {name: timing.quickest for name, timing in named},
    }
