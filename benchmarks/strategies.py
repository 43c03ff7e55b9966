"""Every strategy on the demo and the cases: evaluations, time, ops left in fallback, met or not.

Full evaluations are counted once per model: what a study takes over from an equal model costs
nothing. The FP32 baseline is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
import os
from pathlib import Path
import time
from typing import Any
import warnings

from benchmarks.cases import DEMO
from benchmarks.cases import load_case
from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import tune


STRATEGIES = ("auto", "conservative", "basic", "mse", "mse_v2", "hawq_v2", "bayesian", "tpe")
PER_TENSOR = {"Conv": {"weight": {"granularity": ["per_tensor"]}}}


@dataclass(frozen=True)
class Task:
    """A case with the tolerance at which it is tuned."""

    folder: str
    criterion: str
    tolerable_loss: float
    op_type_dict: dict[str, Any] | None = None
    only: tuple[str, ...] = field(default=STRATEGIES)


TASKS = (
    Task("", "relative", 0.01),  # The demo.
    Task("digits_dscnn_uneq", "absolute", 0.02),
    Task("digits_vit_out", "absolute", 0.004),
    Task("fashion_mobilenet", "relative", 0.005, PER_TENSOR),
    Task("fashion_vit", "relative", 0.01),
)


def run(cases: Path | None) -> None:
    """``STRATEGIES`` and ``CASE`` in the environment choose some, separated by commas."""
    warnings.simplefilter("ignore")
    wanted = os.environ.get("STRATEGIES", ",".join(STRATEGIES)).split(",")
    only = os.environ.get("CASE", "").split(",")
    print(f"{'case':18} {'strategy':13} met  fallback  evaluations  samples     s  metric  FP32")
    for task in TASKS:
        if task.folder and cases is None:
            continue
        case = load_case(cases / task.folder if cases and task.folder else DEMO)
        if only != [""] and case.name not in only:
            continue
        for strategy in wanted:
            measure, calls = case.accuracy(), []

            def evaluate(session: Any, measure: Any = measure, calls: list[int] = calls) -> float:
                calls.append(1)
                return measure(session)

            started = time.perf_counter()
            result = tune(
                case.model,
                calibration_data={case.input_name: case.calibration},
                evaluate=evaluate,
                op_type_dict=task.op_type_dict,
                accuracy_criterion=AccuracyCriterion(
                    criterion=task.criterion, tolerable_loss=task.tolerable_loss
                ),
                tuning_criterion=TuningCriterion(strategy=strategy, max_trials=100),
                recipes="none",  # The same space for all strategies.
                verify=False,  # What it costs does not depend on the search.
            )
            taken = time.perf_counter() - started
            print(
                f"{case.name:18} {strategy:13} {'yes' if result.met else 'NO ':3}  "
                f"{len(result.fallback_ops):3} of {len(result.space.tunables):2}  "
                f"{len(calls):11}  {len(calls) * len(case.y):7}  {taken:4.0f}  "
                f"{result.metric:.4f}  {result.baseline:.4f}  {result.stopped_because}",
                flush=True,
            )
