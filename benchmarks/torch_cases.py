"""What is found for the cases as PyTorch modules, for PyTorch and on the ONNX road.

One thread; each case at one tolerance, with ``evaluate=``; latency is that of a batch of 64. First
the accuracy of FP32, the time of its compiled program for a batch of 64, and that with all ops in
bfloat16 over it. Then the answers of ``tune(backend=TorchBackend(...))`` and ``tune(module, ...)``
for each objective. ``met``: ``FP32`` where nothing is better. ``evals``: samples run through
models over the evaluation set, sensitivities included. ``fallback``: ops that are not quantized,
and ``bf16``: how many of those run in bfloat16. ``agree``: the part of the samples with the same
class in the simulation and in the converted program, and ``differ``: the difference of their
accuracies. The time of the answer, compiled where it is PyTorch's, all in turns: ``ms``, ``/FP32``
and ``/bf16``: over those of the compiled programs, and ``/own``: over FP32 in the same runtime.
``file``: its file over FP32's.

In the environment: ``CASE`` and ``OBJECTIVE`` (separated by commas; default: all, and
``latency,size``), ``SECONDS`` (for each search, default 1800), ``ONNX=0`` (without the ONNX road).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from functools import partial
import logging
import os
from pathlib import Path
import tempfile
from typing import Any
import warnings

import numpy as np
import torch
from torch import nn

from benchmarks.cases import Case
from benchmarks.cases import load_case
from benchmarks.torch_modules import NAMES
from benchmarks.torch_modules import module_of
from benchmarks.torch_stock import one_thread
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.backends.base import Model
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import TorchModel
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.evaluation.difference import compare
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


TOLERANCES = {"digits_dscnn_uneq": 0.02, "digits_vit_out": 0.004}
"""Relative losses; 0.01 for the others."""
BATCH = 64
_EVALUATED = 250
_ROUNDS = 60
_TIMED_SECONDS = 10.0
_BF16 = OpConfig("bf16")


@dataclass(frozen=True)
class ModuleCase:
    """A case as a module.

    Args:
        case:
            The case.
        module:
            The module.
        backend:
            The PyTorch backend of it.
    """

    case: Case
    module: nn.Module
    backend: TorchBackend

    @cached_property
    def x(self) -> torch.Tensor:
        """The evaluation samples."""
        return torch.from_numpy(self.case.x)

    @property
    def tolerance(self) -> float:
        """The relative loss that is tolerated."""
        return TOLERANCES.get(self.case.name, 0.01)

    def accuracy(self, model: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """The part of samples whose class is right."""
        with torch.no_grad():
            classes = [model(x).argmax(1).numpy() for x in self.x.split(_EVALUATED)]
        return float((np.concatenate(classes) == self.case.y).mean())

    def feeds(self, model: Model) -> list[dict[str, np.ndarray]]:
        """The evaluation samples as a model takes them."""
        (spec,) = model.inputs
        places = range(0, len(self.case.x), _EVALUATED)
        return [{spec.name: self.case.x[start : start + _EVALUATED]} for start in places]

    def timed(self, model: Model) -> Callable[[], object]:
        """Runs a model on one batch."""
        (spec,) = model.inputs
        return partial(model.run, {spec.name: self.case.x[:BATCH]})

    def in_floats(self, option: OpConfig | None) -> QuantConfig:
        """All ops that have an option in it, and the others in FP32."""
        ops = self.backend.capability().ops
        return QuantConfig({op.name: option for op in ops if option in op.options and option})


def run(cases: Path | None) -> None:
    """Print the table."""
    assert cases is not None
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(
        f"{'case':20}{'road':8}{'objective':10}{'loss <=':>8}{'met':>5}{'loss':>8}{'evals':>7}"
        f"{'fallback':>9}{'bf16':>5}{'agree':>9}{'differ':>9}{'ms':>9}{'/FP32':>6}{'/bf16':>6}"
        f"{'/own':>6}{'file':>6}"
    )
    with one_thread():
        for each in module_cases(cases):
            for line in _rows(each):
                print(f"{each.case.name:20}{line}", flush=True)


def module_cases(cases: Path) -> Iterator[ModuleCase]:
    only = os.environ.get("CASE", ",".join(NAMES)).split(",")
    for name in NAMES:
        if name in only:
            case, module = load_case(cases / name), module_of(cases / name)
            x = torch.from_numpy(case.calibration)
            backend = TorchBackend(module, x[:2], calibration_data=x, latency_batch_size=BATCH)
            yield ModuleCase(case, module, backend)


def _rows(it: ModuleCase) -> Iterator[str]:
    whole = it.backend.quantize(it.in_floats(None))
    fp32, bf16 = whole.compiled(), it.backend.quantize(it.in_floats(_BF16)).compiled()
    seconds = times_of(it, fp32, bf16)
    ops = len(it.backend.capability().ops)
    yield (
        f"FP32: accuracy {it.accuracy(it.module):.4f}, {ops} ops; compiled, batch {BATCH}: "
        f"{1e3 * seconds[0]:.3f} ms; bf16 {seconds[1] / seconds[0]:.2f} of that, accuracy "
        f"{it.accuracy(bf16.native()):.4f}"
    )
    for objective in os.environ.get("OBJECTIVE", "latency,size").split(","):
        yield from _answers(it, objective, whole, fp32, bf16)


def _answers(
    it: ModuleCase, objective: str, whole: TorchModel, fp32: TorchModel, bf16: TorchModel
) -> Iterator[str]:
    result = tuned(it, objective, backend=it.backend)
    model = it.backend.quantize(config_of(result))
    same = compare(model.simulated, model, it.feeds(model))
    differ = it.accuracy(model.native()) - it.accuracy(model.simulated.native())
    compared: list[Model] = [fp32, bf16, model.compiled()]
    other = _onnx(it, objective)
    if other is not None:
        backend: Any = other.backend
        compared += [
            backend.quantize(config_of(other)),
            backend.quantize(other.space.fp32()),
        ]
    times = times_of(it, *compared)

    def row(road: str, found: TuningResult, agreement: str, seconds: float, own: float) -> str:
        config = config_of(found)
        return (
            f"{road:8}{objective:10}{it.tolerance:8.3f}{met_of(found):>5}{loss_of(found):>8}"
            f"{found.full_evaluations:7.2f}{len(config.fallback_ops):9}{_in_bf16(config):5}"
            f"{agreement:>18}{1e3 * seconds:9.3f}{seconds / times[0]:6.2f}"
            f"{seconds / times[1]:6.2f}{seconds / own:6.2f}"
        )

    agreement = f"{same.agreement or 0:9.2%}{differ:+9.4f}"
    file = _file_bytes(model) / _file_bytes(whole)
    yield f"{row('PyTorch', result, agreement, times[2], times[0])}{file:6.2f}"
    if other is not None:
        whole_file = _file_bytes(backend.quantize(other.space.fp32()))
        file = _file_bytes(backend.quantize(config_of(other))) / whole_file
        yield f"{row('ONNX', other, '', times[3], times[4])}{file:6.2f}"


def tuned(it: ModuleCase, objective: str, **given: Any) -> TuningResult:
    return tune(
        **given,
        evaluate=it.accuracy,
        tolerable_loss=it.tolerance,
        objective=objective,
        timeout=float(os.environ.get("SECONDS", "1800")),
        measure_gain=False,
        show_progress=False,
    )


def _onnx(it: ModuleCase, objective: str) -> TuningResult | None:
    if os.environ.get("ONNX") == "0":
        return None
    x = torch.from_numpy(it.case.calibration)
    return tuned(
        it,
        objective,
        model=it.module,
        example_inputs=x[:2],
        calibration_data=x,
        latency_batch_size=BATCH,
        threads=1,
    )


def times_of(it: ModuleCase, *models: Model) -> list[float]:
    runs = [it.timed(model) for model in models]
    timings = time_interleaved(runs, rounds=_ROUNDS, seconds=_TIMED_SECONDS)
    return [timing.quickest for timing in timings]


def config_of(result: TuningResult) -> QuantConfig:
    """The answer, or FP32 where none was found."""
    return result.config if result.met and result.config else result.space.fp32()


def _in_bf16(config: QuantConfig) -> int:
    return sum(option.mode == "bf16" for option in config.ops.values())


def met_of(result: TuningResult) -> str:
    return "FP32" if result.is_fp32 else "yes" if result.met else "no"


def loss_of(result: TuningResult) -> str:
    return "-" if result.loss is None else f"{result.loss:.2%}"


def _file_bytes(model: Model) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        model.save(path)
        return path.stat().st_size
