"""``tune`` with all defaults; the ways are labelled data and a function that gives one number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counting import Counter
import onnxruntime
import optuna
from task import Task

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import SampleMetric


def search(task: Task, way: str, path: Path, counter: Counter) -> dict[str, Any]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def evaluate(session: Any) -> float:
        with counter.evaluating():
            return task.metric(session)

    plain = task.labels.ndim == 1
    score = SampleMetric(name="score", score=task.scores, bounds=(0, 1))
    # As for the others: one thread.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ways: dict[str, dict[str, Any]] = {
        "data": {
            "data": {task.input_name: task.x, "labels": task.labels},
            "metric": "accuracy" if plain else score,
            "batch_size": task.batch_size,
        },
        "evaluate": {"evaluate": evaluate},
    }
    result = optuna_quant.tune(
        task.model,
        calibration_data={task.input_name: task.calibration},
        accuracy_criterion=AccuracyCriterion(
            criterion="relative" if task.relative else "absolute",
            tolerable_loss=task.tolerable_loss,
        ),
        session_options=options,
        **ways[way],
    )
    if result.met:
        result.save(path)
    elif result.config is not None:
        result.save(path, closest=True)
    if way == "evaluate":
        return {"says_met": bool(result.met)}
    # Which runs belong to evaluations only the result tells here.
    rows = result.full_evaluations * len(task.x)
    return {
        "sets": result.full_evaluations,
        "other_sets": (counter.evaluation_rows + counter.other_rows - rows) / len(task.x),
        "says_met": bool(result.met),
    }
