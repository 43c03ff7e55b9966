"""What deciding sample by sample costs, beside what it decides on: the evaluation.

A candidate that is never given up is decided on after every batch of 32 until the last sample, by
what a trial does, from scores that are there already. The evaluation is that of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.cases import DEMO
from benchmarks.cases import Case
from benchmarks.cases import load_case
from benchmarks.timing import alternating
from benchmarks.timing import seconds
from optuna_quant import AccuracyCriterion
from optuna_quant import record
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.data_evaluation import DataEvaluation
from optuna_quant.evidence import Population
from optuna_quant.evidence import SampleOrder
from optuna_quant.evidence import ThresholdTest
from optuna_quant.evidence import difficulty_levels
from optuna_quant.evidence.threshold import bounds
from optuna_quant.evidence.threshold import estimate
from optuna_quant.sampled_evaluation import SampledTrial


BATCH = 32
LOSS = 0.01
LIMIT = 0.01
REPEAT = 15


@dataclass(frozen=True)
class Known:
    """An evaluation that costs nothing: the scores are known."""

    batches: tuple[np.ndarray, ...]
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def samples(self) -> int:
        return sum(map(len, self.batches))

    def scores(self, model: Any, indices: np.ndarray) -> Iterator[np.ndarray]:
        yield from self.batches

    def scores_and_margins(self, model: Any, indices: np.ndarray) -> Iterator[Any]:
        for scores in self.batches:
            yield scores, None


def run(cases: Path | None) -> None:
    folders = [DEMO]
    if cases is not None:
        folders += sorted(path.parent for path in cases.glob("*/model.onnx"))
    print(f"per batch of {BATCH}, on average over all samples; at most {LIMIT:.0%} is promised")
    print(
        f"{'model':20} {'':5} {'samples':>7} {'evaluation':>11} {'decision':>10} {'share':>7}"
        f" {'watched':>10} {'share':>7} {'update':>9} {'estimate':>9} {'bounds':>9}"
    )
    for folder in folders:
        measure(load_case(folder))


def measure(case: Case) -> None:
    backend = OnnxRuntimeBackend(
        case.model, calibration_data=[{case.input_name: case.calibration}]
    )
    space = backend.tuning_space()
    evaluation = DataEvaluation({case.input_name: case.x, "labels": case.y}, batch_size=BATCH)
    population = _population(backend.quantize(space.fp32()), evaluation)
    indices = population.order.indices
    baseline = population.baseline[indices]
    known = Known(tuple(np.split(baseline, range(BATCH, len(baseline), BATCH))))
    count = len(known.batches)
    for name, config in (("INT8", space.default()), ("FP32", space.fp32())):
        model = backend.quantize(config)
        evaluated, begun, decided, watched = alternating(
            lambda model=model: _exhaust(evaluation.scores(model, indices)),
            _decisions(population, known, decides=False),
            _decisions(population, known),
            _decisions(population, known, watch=lambda seen: None),
            repeat=REPEAT if evaluation.samples < 5000 else 3,
        )
        decisions = [(found - begun) / count for found in (decided, watched)]
        parts = (_update(population, known) / count, *_reading(population, baseline))
        print(
            f"{case.name:20} {name:5} {evaluation.samples:7} {1e6 * evaluated / count:8.1f} us ",
            *(
                f"{1e6 * cost:7.2f} us {cost * count / evaluated:6.2%}"
                + ("!" if cost * count / evaluated > LIMIT else " ")
                for cost in decisions
            ),
            *(f"{1e6 * part:6.1f} us" for part in parts),
            flush=True,
        )


def _population(model: Any, evaluation: DataEvaluation) -> Population:
    found = list(evaluation.scores_and_margins(model, np.arange(evaluation.samples)))
    margins = [margin for _, margin in found if margin is not None]
    levels = difficulty_levels(np.concatenate(margins) if margins else None, evaluation.samples)
    return Population(
        order=SampleOrder.draw(levels, seed=0),
        baseline=np.concatenate([scores for scores, _ in found]),
        bounds=(0.0, 1.0),
    )


def _decisions(
    population: Population, known: Known, *, watch: Any = None, decides: bool = True
) -> Callable[[], None]:
    """The decisions of a trial that evaluates everything, or its beginning only."""
    study = optuna.create_study(direction="maximize")
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=LOSS)
    baseline = float(population.baseline.mean())
    # Trials begin and end whether or not they decide: here it is always the same one.
    trial = study.ask()

    def decide() -> None:
        sampled = SampledTrial(trial, population, criterion, baseline, goal=record.FULL)
        if decides:
            sampled.evaluate(None, known, watch)
        else:
            _exhaust(known.scores(None, population.order.indices))

    return decide


def _update(population: Population, known: Known) -> float:
    """What the test takes for all batches, if it looks after every one."""

    def follow() -> None:
        test = ThresholdTest(population, float(population.normal_baseline.mean()) - LOSS)
        for batch in known.batches:
            test.update(batch)

    return seconds(follow)


def _reading(population: Population, scores: np.ndarray) -> tuple[float, float]:
    half = scores[: len(scores) // 2]
    return (
        seconds(lambda: estimate(population, half), repeat=25),
        seconds(lambda: bounds(population, half), repeat=3),
    )


def _exhaust(batches: Iterator[np.ndarray]) -> None:
    for _ in batches:
        pass
