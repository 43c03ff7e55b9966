"""What an answer loses on samples that the search has not seen, by how long it has searched.

The model is the generated one of 110 MatMul, of which there are as many samples as one likes: the
search sees 2,000, and its answer is evaluated again on 40,000 others. The more configurations are
tried on the same samples, the luckier is the cheapest that meets the criterion on them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
import warnings

import numpy as np
import onnxruntime
import optuna

from benchmarks.answers import TASKS
from benchmarks.answers import _costs
from benchmarks.answers import _fp32
from benchmarks.answers import _Held
from benchmarks.answers import _tune
from benchmarks.hard_chain import hard_chain
from benchmarks.hard_chain import other_samples


_SAMPLES = 40_000
_SEARCHES = (
    ("auto", "data", 100, 0.0),
    ("auto", "evaluate", 100, 0.0),
    ("mse_v2", "evaluate", 300, None),
    ("conservative", "evaluate", 300, None),
)


def run(cases: Path | None) -> None:
    del cases  # The model is generated.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    os.environ["OBJECTIVE"] = "bit_operations"
    given = hard_chain()
    task = next(task for task in TASKS if task.name == "hard_chain")
    costs = _costs(given["model"], "", _Held(given["calibration_data"]))
    others = other_samples(_SAMPLES)
    fp32 = _accuracy(given["model"], others)
    print(
        f"{'tol':>5} {'strategy':14} {'mode':9} {'evals':>6} {'cost':>6} {'loss':>7} {'others':>7}"
    )
    for tolerance in task.tolerances:
        for strategy, mode, trials, seconds in _SEARCHES:
            result, evaluations = _tune(
                task, given, mode, tolerance, costs, strategy, 0, trials, seconds
            )
            here = 1 - result.metric / result.baseline
            there = 1 - _accuracy(result.model().proto.SerializeToString(), others) / fp32
            print(
                f"{tolerance:5g} {strategy:14} {mode:9} {evaluations:6.1f} "
                f"{result.cost / _fp32(result):6.3f} {here:7.2%} {there:7.2%}",
                flush=True,
            )


def _accuracy(model: bytes, data: dict[str, np.ndarray]) -> float:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": data["x"]})
    return float((logits.argmax(axis=1) == data["labels"]).mean())
