"""How often the interval of the chosen model's loss holds the true loss, plain and corrected.

2,000 searches of each kind; fewer with ``N_SEARCHES``. In the first kind all candidates are equal
and set beforehand: for that the correction is proven. In the others the results decide what is
tried next, where it is not: each op breaks and repairs samples of its own, the greedy search takes
all that happen to do good, and its answer is as lucky as any that such a search can find.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
import multiprocessing
import os
from pathlib import Path

import numpy as np

from optuna_quant.sequential.interval import CONFIDENCE
from optuna_quant.sequential.interval import loss_interval
from optuna_quant.sequential.simultaneous import chosen_loss_interval


Array = np.ndarray

SEARCHES = int(os.environ.get("N_SEARCHES", "2000"))
SAMPLES = 500
BASELINE = 0.9
CANDIDATES = 60
LOSS = 0.023
TOLERANCE = 0.005
DISAGREEMENTS = (0.03, 0.05, 0.1, 0.2)
GREEDY_OPS = (10, 20, 40)
# What an op newly gets wrong and newly right, as parts of all samples.
OP_EFFECTS = ((0.004, 0.003), (0.001, 0.001))
AT_ONCE = 50


@dataclass(frozen=True)
class Found:
    """The answer of a search.

    Args:
        candidate:
            Its scores.
        baseline:
            Those of the FP32 model.
        models:
            How many models were looked at.
        truth:
            Its loss on all samples that there could be.
    """

    candidate: Array
    baseline: Array
    models: int
    truth: float

    @property
    def meets(self) -> bool:
        """Whether the samples say that it is good enough."""
        return bool(self.baseline.mean() - self.candidate.mean() <= TOLERANCE)


def best_of_equals(
    rng: np.random.Generator,
    *,
    disagreement: float,
    candidates: int = CANDIDATES,
    samples: int = SAMPLES,
    loss: float = LOSS,
) -> Found:
    """The best of so many candidates that all lose the same in truth."""
    lost, won = (disagreement + loss) / 2, (disagreement - loss) / 2
    right = rng.random(samples) < BASELINE
    chances = np.where(right, 1 - lost / BASELINE, won / (1 - BASELINE))
    scores = rng.random((candidates, samples)) < chances
    best = scores[scores.mean(axis=1).argmax()]
    return Found(best.astype(float), right.astype(float), candidates, loss)


def greedy(rng: np.random.Generator, *, ops: int, lost: float, won: float) -> Found:
    """Quantize one op after the other, always the one that looks best; take the best of all."""
    right = rng.random(SAMPLES) < BASELINE
    chances = np.where(right, lost / BASELINE, won / (1 - BASELINE))
    flips = rng.random((ops, SAMPLES)) < chances
    current, left = right.copy(), list(range(ops))
    best, most, count, looked = right, -1.0, 0, 0
    while left:
        looked += len(left)
        metrics = [float((current ^ flips[op]).mean()) for op in left]
        current = current ^ flips[left.pop(int(np.argmax(metrics)))]
        if current.mean() > most:
            best, most, count = current, float(current.mean()), ops - len(left)
    return Found(best.astype(float), right.astype(float), looked, _true_loss(count, lost, won))


def _true_loss(ops: int, lost: float, won: float) -> float:
    """What so many ops lose together: a sample is right or wrong after each of their flips."""
    right = BASELINE
    down, up = lost / BASELINE, won / (1 - BASELINE)
    # A flip depends on what FP32 gets right, so the two kinds are followed apart.
    kept = (1 + (1 - 2 * down) ** ops) / 2
    repaired = (1 - (1 - 2 * up) ** ops) / 2
    return right - (right * kept + (1 - right) * repaired)


def covered(found: Found) -> tuple[bool, bool]:
    """Whether the plain interval holds the truth, and the corrected one."""
    bounds = (0.0, 1.0)
    plain = loss_interval(
        found.candidate, found.baseline, bounds=bounds, higher_is_better=True, relative=False
    )
    corrected = chosen_loss_interval(
        found.candidate,
        found.baseline,
        models=found.models,
        bounds=bounds,
        higher_is_better=True,
        relative=False,
    )
    return plain[0] <= found.truth <= plain[1], corrected[0] <= found.truth <= corrected[1]


Search = Callable[[np.random.Generator], Found]


def run(cases: Path | None) -> None:
    """Print how often the truth is inside."""
    # A true coverage of 95% gives less than this once in a thousand times.
    enough = CONFIDENCE - 3.1 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / SEARCHES)
    print(f"{SEARCHES} searches, {SAMPLES} samples; how often the interval holds the true loss")
    print(f"{'search':44} {'models':>6} {'met':>6} {'plain':>7} {'corrected':>9} {'if met':>7}")
    for disagreement in DISAGREEMENTS:
        search = partial(best_of_equals, disagreement=disagreement)
        _print(f"best of {CANDIDATES} equals, {100 * disagreement:g}% disagree", search, enough)
    for ops in GREEDY_OPS:
        for lost, won in OP_EFFECTS:
            name = f"greedy, {ops} ops of {100 * lost:g}% lost, {100 * won:g}% won"
            _print(name, partial(greedy, ops=ops, lost=lost, won=won), None)


def _print(name: str, search: Search, enough: float | None) -> None:
    seeds = np.random.SeedSequence(0).spawn(-(-SEARCHES // AT_ONCE))
    counts = [min(AT_ONCE, SEARCHES - i * AT_ONCE) for i in range(len(seeds))]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        parts = list(pool.map(_searches, [search] * len(seeds), seeds, counts))
    rows = np.concatenate(parts)
    plain, corrected, met = rows[:, 0].mean(), rows[:, 1].mean(), rows[:, 2] > 0
    of_met = rows[met, 1].mean() if met.any() else np.nan
    note = " TOO FEW" if enough is not None and corrected < enough else ""
    print(
        f"{name:44} {rows[:, 3].mean():6.0f} {met.mean():6.2f} {plain:7.3f} {corrected:9.3f} "
        f"{of_met:7.3f}{note}",
        flush=True,
    )


def _searches(search: Search, seed: np.random.SeedSequence, count: int) -> Array:
    rng = np.random.default_rng(seed)
    found = (search(rng) for _ in range(count))
    return np.array([(*covered(f), f.meets, f.models) for f in found], dtype=float)
