"""What deciding sample by sample costs, beside what it decides on: the evaluation.

A trial gets scores that are known already, batch by batch, and does all that it does with them;
the time that the model takes for such a batch is measured beside it. Four candidates:

- *agrees*: its scores are the baseline's, so nothing ever happens,
- *close*: it meets the criterion by one sample, differs on many, and is decided at the last,
- *own*: it has the scores that the model really has, until it is given up,
- *found*: those of the model that a search finds.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.cases import DEMO
from benchmarks.cases import Case
from benchmarks.cases import load_case
from benchmarks.timing import alternating
from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.sampled import SampledTrial
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels
from optuna_quant.study.fidelity import FULL


BATCH = 32
LOSS = 0.01
LIMIT = 0.01
REPEAT = 15
# A trial of a few batches is over so soon that many are timed at once.
AT_ONCE = 20


@dataclass(frozen=True)
class Known:
    """An evaluation that costs nothing: the scores are known, in the order of evaluation."""

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

    def first(self, count: int) -> Known:
        return Known(self.batches[:count])


def run(cases: Path | None) -> None:
    folders = [DEMO]
    if cases is not None:
        folders += sorted(path.parent for path in cases.glob("*/model.onnx"))
    print(f"per batch of {BATCH}, on average over all that are seen; {LIMIT:.0%} is aimed at")
    print(
        f"{'model':20} {'':5} {'candidate':9} {'batches':>7} {'evaluation':>11} {'decision':>11}"
        f" {'share':>7}  {'watched':>10} {'share':>7}  {'a trial begins and ends in':>26}"
    )
    for folder in folders:
        measure(load_case(folder))


def measure(case: Case) -> None:
    backend = OnnxRuntimeBackend(
        case.model, calibration_data=[{case.input_name: case.calibration}]
    )
    space = backend.tuning_space()
    evaluation = DataEvaluation({case.input_name: case.x, "labels": case.y}, batch_size=BATCH)
    fp32 = backend.quantize(space.fp32())
    population = _population(fp32, evaluation)
    indices = population.order.indices
    repeat = REPEAT if evaluation.samples < 5000 else 3
    for name, config in (("INT8", space.default()), ("FP32", space.fp32())):
        model = backend.quantize(config)
        candidates = {"agrees": population.baseline_in_order, "close": _close(population)}
        if name == "INT8":
            found = _found(case).model()
            for kind, one in (("own", model), ("found", found)):
                candidates[kind] = np.concatenate(list(evaluation.scores(one, indices)))
        for kind, scores in candidates.items():
            known = Known(tuple(np.split(scores, range(BATCH, len(scores), BATCH))))
            count = _batches_seen(population, known)
            known = known.first(count)
            evaluated, started, decided, watched, ended = alternating(
                lambda model=model: _exhaust(evaluation.scores(model, indices)),
                _trials(population, known, decides=False),
                _trials(population, known),
                _trials(population, known, watch=lambda seen: None),
                _trials(population, known, concludes=True),
                repeat=repeat,
            )
            batch = evaluated / -(-evaluation.samples // BATCH)
            decisions = [(found - started) / AT_ONCE / count for found in (decided, watched)]
            _print(
                case, name, kind, count, batch, decisions, (ended - decided + started) / AT_ONCE
            )


def _print(
    case: Case,
    name: str,
    kind: str,
    count: int,
    batch: float,
    decisions: list[float],
    trial: float,
) -> None:
    print(
        f"{case.name:20} {name:5} {kind:9} {count:7} {1e6 * batch:8.1f} us ",
        *(
            f"{1e6 * cost:7.2f} us {cost / batch:6.2%}{'!' if cost / batch > LIMIT else ' '}"
            for cost in decisions
        ),
        f"{1e6 * trial:22.0f} us",
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


def _found(case: Case) -> TuningResult:
    return tune(
        case.model,
        calibration_data=[{case.input_name: case.calibration}],
        data={case.input_name: case.x, "labels": case.y},
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=LOSS),
        recipes="none",
    )


def _close(population: Population) -> np.ndarray:
    """Scores that meet the criterion by one sample, and differ where the order expects it."""
    rng = np.random.default_rng(0)
    scores = population.baseline_in_order.copy()
    weights = population.order.weights
    lost = int(1.5 * LOSS * len(scores))
    for value, count in ((1, lost), (0, max(0, lost - int(LOSS * len(scores)) + 1))):
        places = np.flatnonzero(population.baseline_in_order == value)
        chance = weights[places] / weights[places].sum()
        scores[rng.choice(places, min(count, len(places)), replace=False, p=chance)] = 1 - value
    return scores


def _batches_seen(population: Population, known: Known) -> int:
    sampled = _trial(population)
    sampled.evaluate(None, known, None)
    return -(-sampled.seen // BATCH)


def _trials(
    population: Population,
    known: Known,
    *,
    watch: Any = None,
    decides: bool = True,
    concludes: bool = False,
) -> Callable[[], None]:
    """Several trials, or their first samples only."""
    indices = population.order.indices
    trial = _ask()

    def decide() -> None:
        for _ in range(AT_ONCE):
            sampled = _trial(population, trial)
            if not decides:
                _exhaust(known.scores(None, indices))
                continue
            sampled.evaluate(None, known, watch)
            if concludes:
                with contextlib.suppress(optuna.TrialPruned):
                    sampled.conclude()

    return decide


def _ask() -> optuna.Trial:
    return optuna.create_study(direction="maximize").ask()


def _trial(population: Population, trial: optuna.Trial | None = None) -> SampledTrial:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=LOSS)
    baseline = float(population.baseline.mean())
    return SampledTrial(trial or _ask(), population, criterion, baseline, fidelity=FULL)


def _exhaust(batches: Iterator[np.ndarray]) -> None:
    for _ in batches:
        pass
