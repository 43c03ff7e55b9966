"""How large the front of accuracy and cost is: after 20 trials of ours, after 200 of Optuna's.

The figures are hypervolumes, as a part of the area from the cheapest configuration to FP32 and
from no loss to twenty tolerances: 1 is a model that costs least and loses nothing, and what is
better than FP32 loses nothing. All search the same parameters; the costs are bit operations
(``OBJECTIVE``), the accuracy is that on the first ``SAMPLES`` samples (default: 900). The figures
of Optuna's samplers are medians over ``SEEDS`` (default: 0), on which ours does not depend. The
two models that lose next to nothing otherwise are quantized per tensor, with ranges from the
smallest to the largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
import logging
import os
from pathlib import Path
from statistics import median
import time
import warnings

import numpy as np
import onnxruntime
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import NSGAIISampler
from optuna.samplers import TPESampler

from benchmarks.cases import DEMO
from benchmarks.cases import Case
from benchmarks.cases import load_case
from optuna_quant import AccuracyCriterion
from optuna_quant import ParetoObjective
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs.dominance import hypervolume
from optuna_quant.samplers import ParetoQuantSampler
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.baseline import get_baseline


CASES = ("digits_dscnn_uneq", "digits_vit_out", "fashion_mobilenet")
# Where all options are allowed these lose nothing, so that there is no front to be found.
PLAIN = ("digits_vit_out", "fashion_mobilenet")
PER_TENSOR_MINMAX = {
    ".*": {"weight": {"granularity": ["per_tensor"]}, "activation": {"algorithm": ["minmax"]}}
}
CRITERION = AccuracyCriterion(criterion="relative", tolerable_loss=0.01)
TOLERANCES = 20
OURS = (5, 10, 20)
OTHERS = (20, 200)


def run(cases: Path | None) -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    only = os.environ.get("CASES")
    folders = [DEMO]
    if cases is not None:
        folders += [cases / name for name in CASES if (cases / name).is_dir()]
    heads = [f"pareto {n}" for n in OURS]
    heads += [f"{name} {n}" for name in ("nsga2", "tpe") for n in OTHERS]
    print(f"{'case':20} {'ops':>4}{''.join(f'{head:>11}' for head in heads)}   seconds a trial")
    for folder in folders:
        if only is None or folder.name in only.split(","):
            print(_row(folder), flush=True)


def _row(folder: Path) -> str:
    case = _load(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    backend = OnnxRuntimeBackend(
        case.model,
        calibration_data={case.input_name: case.calibration},
        session_options=options,
    )
    limits = PER_TENSOR_MINMAX if case.name in PLAIN else None
    space = backend.tuning_space(op_type_dict=limits)
    measure = os.environ.get("OBJECTIVE", "bit_operations")
    costs = backend.costs(space, checks=0)
    evaluate = case.accuracy(int(os.environ.get("SAMPLES", "900")))
    objective = ParetoObjective(
        backend, space, evaluate, CRITERION, objectives=measure, costs=costs
    )
    known = objective.costs[0]
    sampler = ParetoQuantSampler(
        space,
        criterion=CRITERION,
        costs=known.table,
        sensitivity=backend.sensitivity(),
        min_gain=1e-9,
    )
    best = known.of_cheapest
    assert best is not None
    area = (best, known.fp32_cost)
    ours, seconds = _search(objective, space, sampler, OURS, area)
    cells, times = [f"{value:.4f}" for value in ours], [seconds]
    seeds = [int(seed) for seed in os.environ.get("SEEDS", "0").split(",")]
    for make in (_nsga2, _tpe):
        found = [_search(objective, space, make(seed), OTHERS, area) for seed in seeds]
        for place in range(len(OTHERS)):
            cells.append(f"{median(values[place] for values, _ in found):.4f}")
        times.append(median(seconds for _, seconds in found))
    shown = "".join(f"{cell:>11}" for cell in cells)
    told = ", ".join(f"{seconds:.2f}" for seconds in times)
    return f"{case.name:20} {len(space.tunables):4}{shown}   {told}"


def _load(folder: Path) -> Case:
    case = load_case(folder) if folder != DEMO else None
    if case is not None:
        return case
    calibration, data = np.load(folder / "calib.npz"), np.load(folder / "eval.npz")
    name = onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()[0].name
    labels = data["labels" if "labels" in data.files else "y"]
    return Case("digits", folder / "model.onnx", name, calibration["x"], data["x"], labels)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _search(
    objective: ParetoObjective,
    space: TuningSpace,
    sampler: BaseSampler,
    budgets: Sequence[int],
    area: tuple[float, float],
) -> tuple[list[float], float]:
    """The hypervolume after each budget, without counting FP32, and the seconds of a trial."""
    study = optuna.create_study(directions=objective.directions, sampler=sampler)
    started = time.perf_counter()
    if not isinstance(sampler, ParetoQuantSampler):
        study.enqueue_trial(space.params_of(space.fp32()))  # They get the baseline as well.
    study.optimize(objective, n_trials=1 + max(budgets))
    seconds = (time.perf_counter() - started) / (1 + max(budgets))
    baseline = get_baseline(study)
    assert baseline is not None
    cheapest, fp32 = area
    most = min(TOLERANCES * (baseline.value - CRITERION.threshold(baseline.value)), baseline.value)
    points = [
        (t.values[1] - cheapest, max(baseline.value - t.values[0], 0.0))
        if t.values
        else (np.inf, np.inf)
        for t in study.get_trials(deepcopy=False)
    ]
    reference = (fp32 - cheapest, most)
    size = reference[0] * reference[1]
    return [hypervolume(points[: 1 + n], reference) / size for n in budgets], seconds
