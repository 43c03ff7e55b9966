"""What the default strategy hands out, and after how many evaluations.

Every case at two tolerances (plain INT8 fails by little, and by much), with ``data=`` (single
samples are known) and with ``evaluate=`` (one number). ``evals``: samples run through models over
the evaluation set, sensitivities included, median and worst over the seeds; ``cost``: the
predicted cost of the answer over FP32's; ``met``: how often the criterion was met, or that FP32 is
the answer; ``best``: that of the best that any strategy finds with
``REFERENCE`` trials (default 0: left out), each in ``SECONDS`` at most; ``5``, ``10``, ``20``:
that of the best so far after so many evaluations. One thread; each case's cost table is made once.

In the environment: ``CASE`` and ``MODES`` (separated by commas; besides ``data`` and ``evaluate``
there is ``thorough``, with ``data=`` and without a time limit), ``SEEDS`` (default 0,1,2,3,4),
``STRATEGY``, ``OBJECTIVE`` (default latency), ``RECIPES`` (names separated by commas, ``all`` or
``none``; default: as ``tune()``), ``REFERENCE``, ``SECONDS`` (default 600), ``JSON``
(a file that the rows are appended to), ``WRITE`` (a page into which the table is put, such as
docs/answers.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from functools import cache
import json
import logging
import os
from pathlib import Path
import statistics
import time
from typing import Any
import warnings

import numpy as np
import onnxruntime
import optuna

from benchmarks.cases import DEMO
from benchmarks.cases import load_case
from benchmarks.hard_chain import hard_chain
from benchmarks.real_cases import real_cases
from optuna_quant import AccuracyCriterion
from optuna_quant import DataEvaluation
from optuna_quant import TuningCriterion
from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs import Costs
from optuna_quant.selection.answer import candidates
from optuna_quant.tuning.usual_recipes import with_usual


PER_TENSOR = {"Conv": {"weight": {"granularity": ["per_tensor"]}}}
_BUDGETS = (5, 10, 20)
_REFERENCES = ("surrogate", "mse_v2", "conservative")


@dataclass(frozen=True)
class Task:
    """A case with its tolerances."""

    name: str
    criterion: str
    tolerances: tuple[float, float]
    op_type_dict: dict[str, Any] | None = None


TASKS = (
    Task("demo", "relative", (0.05, 0.01)),
    Task("digits_tiny", "absolute", (0.002, 0.0)),
    Task("digits_dscnn_uneq", "absolute", (0.02, 0.005)),
    Task("digits_vit_out", "absolute", (0.004, 0.001)),
    Task("fashion_mobilenet", "relative", (0.005, 0.002), PER_TENSOR),
    Task("fashion_vit", "relative", (0.01, 0.001)),
    Task("hard_chain", "relative", (0.05, 0.01)),
    Task("real/angle", "relative", (0.003, 0.001)),
    Task("real/pages", "relative", (0.02, 0.005)),
    Task("real/lines", "relative", (0.05, 0.02)),
    Task("real/speech", "relative", (0.01, 0.003)),
    Task("real/music", "relative", (0.1, 0.03)),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    mode: str
    tolerance: float
    ops: int
    evaluations: list[float]
    met: list[bool]
    fallback: list[int]
    cost: list[float]
    after: list[list[float]]
    seconds: float
    best: float | None
    outcome: list[str]


def run(cases: Path | None) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(HEAD)
    lines = [HEAD]
    for row in rows(cases):
        lines.append(shown(row))
        print(lines[-1], flush=True)
        if path := os.environ.get("JSON"):
            with Path(path).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    if path := os.environ.get("WRITE"):
        _write(Path(path), "\n".join(lines))


def _write(page: Path, table: str) -> None:
    """Put the table into a page, between the marks of its objective."""
    name = os.environ.get("OBJECTIVE", "latency")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n```text\n{table}\n```\n{end}{after}", encoding="utf-8")


HEAD = (
    f"{'case':18} {'mode':8} {'tol':>6} {'ops':>4} {'evals':>6} {'worst':>6} {'met':>5} "
    f"{'FP32':>5} {'cost':>6} {'best':>6} {'5':>6} {'10':>6} {'20':>6} {'s':>6}"
)


def shown(row: Row) -> str:
    """A line of the table."""
    after = [statistics.median(each[i] for each in row.after) for i in range(len(_BUDGETS))]
    best = "" if row.best is None else f"{row.best:.3f}"
    met = f"{sum(row.met)}/{len(row.met)}"
    if set(row.outcome) == {"no_gain"}:
        met = "FP32"
    return (
        f"{row.case:18} {row.mode:8} {row.tolerance:6g} {row.ops:4} "
        f"{statistics.median(row.evaluations):6.2f} {max(row.evaluations):6.2f} "
        f"{met:>5} {statistics.median(row.fallback):5g} "
        f"{statistics.median(row.cost):6.3f} {best:>6} "
        + " ".join(f"{each:6.3f}" for each in after)
        + f" {row.seconds:6.1f}"
    )


def rows(cases: Path | None) -> Iterator[Row]:
    """The lines of the table, one after the other."""
    only = os.environ.get("CASE", "").split(",")
    modes = os.environ.get("MODES", "data,evaluate").split(",")
    for task in TASKS:
        if only != [""] and task.name not in only:
            continue
        given = _given(task.name, cases)
        if given is None:
            continue
        for tolerance in task.tolerances:
            for mode in modes:
                if mode != "evaluate" and "data" not in given:
                    continue
                yield _row(task, given, mode, tolerance)


def _given(name: str, cases: Path | None) -> dict[str, Any] | None:
    """What ``tune()`` takes of a case: model, calibration data, and data or evaluate."""
    if name == "hard_chain":
        return hard_chain()
    if name.startswith("real/"):
        found = real_cases(cases).get(name.removeprefix("real/"))
        return None if found is None else dict(found)
    if name != "demo" and cases is None:
        return None
    if name == "demo":
        with np.load(DEMO / "calib.npz") as calib, np.load(DEMO / "eval.npz") as data:
            return {
                "model": DEMO / "model.onnx",
                "calibration_data": {"x": calib["x"]},
                "data": {"x": data["x"], "labels": data["labels" if "labels" in data else "y"]},
            }
    assert cases is not None
    case = load_case(cases / name)
    return {
        "model": case.model,
        "calibration_data": {case.input_name: case.calibration},
        "data": {case.input_name: case.x, "labels": case.y},
    }


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _recipes() -> str | list[str] | None:
    names = os.environ.get("RECIPES", "")
    return names if names in ("all", "none") else names.split(",") if names else None


def _as_model(model: Any) -> Any:
    return str(model) if isinstance(model, Path) else model


@cache
def _costs(model: str | bytes, key: str, calibration: _Held) -> Costs:
    """The table of a model, made once; the key tells spaces apart."""
    backend = OnnxRuntimeBackend(
        model,
        calibration_data=calibration.value,
        session_options=_options(),
        recipes=with_usual(_recipes()),
    )
    narrowed = PER_TENSOR if key else None
    return backend.costs(backend.tuning_space(op_type_dict=narrowed))


class _Held:
    """Data that are told apart by their identity."""

    def __init__(self, value: object) -> None:
        self.value = value


def _row(task: Task, given: dict[str, Any], mode: str, tolerance: float) -> Row:
    seeds = [int(seed) for seed in os.environ.get("SEEDS", "0,1,2,3,4").split(",")]
    if mode != "data":
        seeds = seeds[:1]  # Nothing is random with evaluate=, and time averages it out.
    held = _HELD.setdefault(task.name, _Held(given["calibration_data"]))
    key = "per_tensor" if task.op_type_dict else ""
    costs = _costs(_as_model(given["model"]), key, held)
    strategy = os.environ.get("STRATEGY", "auto")
    found: dict[str, list[Any]] = {
        name: [] for name in ("evaluations", "met", "fallback", "cost", "after", "outcome")
    }
    started = time.perf_counter()
    ops = 0
    limits = (300, _seconds()) if mode == "thorough" else (100, 0)
    for seed in seeds:
        result, evaluations = _tune(task, given, mode, tolerance, costs, strategy, seed, *limits)
        ops = len(result.space.tunables)
        fp32 = _fp32(result)
        found["evaluations"].append(evaluations)
        found["met"].append(result.met)
        found["fallback"].append(len(result.fallback_ops) if result.met else ops)
        found["cost"].append(result.cost / fp32 if result.met and result.cost else 1.0)
        found["after"].append([_best_after(result, n) / fp32 for n in _BUDGETS])
        found["outcome"].append(str(result.stopped_because))
    seconds = (time.perf_counter() - started) / len(seeds)
    return Row(
        task.name,
        mode,
        tolerance,
        ops,
        seconds=seconds,
        best=_reference(task, given, tolerance, costs),
        **found,
    )


_HELD: dict[str, _Held] = {}


def _tune(
    task: Task,
    given: dict[str, Any],
    mode: str,
    tolerance: float,
    costs: Costs,
    strategy: str,
    seed: int,
    max_trials: int,
    timeout: float | None = 0,
) -> tuple[Any, float]:
    """The result of a search, and how many evaluations it took."""
    named = dict(given)
    calls = [0]
    if mode == "evaluate":
        measure = named.pop("evaluate", None)
        if measure is None:
            measure = DataEvaluation(
                named.pop("data"),
                named.pop("metric", "accuracy"),
                batch_size=named.pop("batch_size", None),
            )

        def evaluate(session: Any) -> float:
            calls[0] += 1
            return float(measure(session))

        named["evaluate"] = evaluate
    model = named.pop("model")
    result = tune(
        _as_model(model),
        accuracy_criterion=AccuracyCriterion(criterion=task.criterion, tolerable_loss=tolerance),
        tuning_criterion=TuningCriterion(
            strategy=strategy,
            max_trials=max_trials,
            timeout=timeout,
            objective=os.environ.get("OBJECTIVE", "latency"),
        ),
        costs=costs,
        op_type_dict=task.op_type_dict,
        session_options=_options(),
        recipes=_recipes(),
        seed=seed,
        verify=False,
        measure_gain=False,
        **named,
    )
    return result, calls[0] if mode == "evaluate" else result.full_evaluations


def _fp32(result: Any) -> float:
    """What the FP32 model costs, as the first trial has recorded it."""
    name = os.environ.get("OBJECTIVE", "latency")
    trials = result.study.get_trials(deepcopy=False)
    return float(trials[0].user_attrs["costs"][name]) if trials else 1.0


def _best_after(result: Any, evaluations: int) -> float:
    """The cost of the best that was known to meet the criterion after so many evaluations."""
    name = os.environ.get("OBJECTIVE", "latency")
    trials = result.study.get_trials(deepcopy=False)
    total, within = 0.0, set()
    for trial in trials:
        evidence = trial.user_attrs.get("evidence")
        if evidence is not None:
            total += evidence.get("evaluated", evidence["samples"]) / evidence["of"]
        elif "reused_from" not in trial.user_attrs:
            total += 1
        if total <= evaluations + 1e-9:
            within.add(trial.number)
    met = [
        candidate.trial.user_attrs["costs"][name]
        for candidate in candidates(result.study, result.criterion)
        if candidate.met and candidate.trial.number in within
    ]
    return float(min(met, default=_fp32(result)))


def _reference(task: Task, given: dict[str, Any], tolerance: float, costs: Costs) -> float | None:
    """The cost of the best that strategies find with many trials, over FP32's."""
    trials = int(os.environ.get("REFERENCE", "0"))
    if not trials:
        return None
    key = task.name, tolerance
    for strategy in () if key in _BEST else _REFERENCES:
        result, _ = _tune(
            task, given, "evaluate", tolerance, costs, strategy, 0, trials, _seconds()
        )
        found = _best_after(result, trials) / _fp32(result)
        _BEST[key] = min(found, _BEST.get(key, 1.0))
    return _BEST[key]


_BEST: dict[tuple[str, float], float] = {}


def _seconds() -> float:
    return float(os.environ.get("SECONDS", "600"))
