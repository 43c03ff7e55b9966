"""What early stopping saves: full-evaluation equivalents until the criterion is met.

Each strategy runs twice on each case: every model on all samples, and on no more than it takes.
A case whose first configuration is good enough takes two evaluations either way, the baseline's
and its own: nothing can be saved there. ``SEEDS`` in the environment gives other orders of the
samples (default: 0), ``STRATEGIES`` and ``CASE`` choose some, separated by commas.
"""

from __future__ import annotations

import os
from pathlib import Path
import time
from typing import Any
import warnings

from benchmarks.cases import DEMO
from benchmarks.cases import Case
from benchmarks.cases import load_case
from benchmarks.strategies import TASKS
from benchmarks.strategies import Task
from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.study.evaluation_cost import full_evaluations


STRATEGIES = ("auto", "basic", "mse_v2", "conservative")


def run(cases: Path | None) -> None:
    warnings.simplefilter("ignore")
    wanted = os.environ.get("STRATEGIES", ",".join(STRATEGIES)).split(",")
    seeds = [int(seed) for seed in os.environ.get("SEEDS", "0").split(",")]
    only = os.environ.get("CASE", "").split(",")
    tasks = [*TASKS, Task("digits_tiny", "relative", 0.01)]
    print(f"{'case':18} {'strategy':12} seed  {'off':>6} {'on':>6}  on/off  ops in fallback  s")
    for task in tasks:
        if task.folder and cases is None:
            continue
        case = load_case(cases / task.folder if cases and task.folder else DEMO)
        if only != [""] and case.name not in only:
            continue
        for strategy in wanted:
            off, _ = tune_task(case, task, strategy, early_stopping="off")
            for seed in seeds:
                on, seconds = tune_task(case, task, strategy, seed=seed)
                costs = [full_evaluations(r.study) for r in (off, on)]
                print(
                    f"{case.name:18} {strategy:12} {seed:4}  {costs[0]:6.2f} {costs[1]:6.2f}  "
                    f"{costs[1] / costs[0]:6.2f}  {_shown(off)} -> {_shown(on):9}  {seconds:.1f}",
                    flush=True,
                )


def tune_task(case: Case, task: Task, strategy: str, **options: Any) -> tuple[TuningResult, float]:
    """The result of a search on labelled data, and the seconds that it took."""
    started = time.perf_counter()
    result = tune(
        case.model,
        calibration_data={case.input_name: case.calibration},
        data={case.input_name: case.x, "labels": case.y},
        op_type_dict=task.op_type_dict,
        accuracy_criterion=AccuracyCriterion(
            criterion=task.criterion, tolerable_loss=task.tolerable_loss
        ),
        tuning_criterion=TuningCriterion(
            # So that all ops are in the space, on every machine.
            strategy=strategy,
            max_trials=300,
            objective="ops",
        ),
        recipes="none",  # The same space for all strategies.
        verify=False,  # What it costs does not depend on the search.
        **options,
    )
    return result, time.perf_counter() - started


def _shown(result: TuningResult) -> str:
    return f"{len(result.fallback_ops)}{'' if result.met else ' (NOT MET)'}"
