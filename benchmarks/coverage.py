"""How often candidates that just meet the criterion are pruned, and how soon worse ones are.

10,000 populations, each in a random order, looked at after every batch of 32; fewer with
``N_POPULATIONS``. First for sums over groups, as the pruner sees them, then sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path

import numpy as np

from benchmarks import sample_coverage
from optuna_quant.sequential.uniform_threshold import UniformThresholdTest


Array = np.ndarray
Groups = Iterator[tuple[int, Array, Array]]
"""After each group: the samples so far, the candidates' sums and the baselines'."""

POPULATIONS = int(os.environ.get("N_POPULATIONS", "10000"))
SIZES = (100, 1000, 10_000, 50_000)
BATCH = 32
ERROR_PROBABILITIES = (0.05, 0.001)
BASELINE = 0.9
LOSS = 0.01
DISAGREEMENTS = (0.03, 0.11, 0.19)
AT_ONCE = 500


def run(cases: Path | None) -> None:
    false_rejections()
    samples_until_rejection()
    sample_coverage.run(POPULATIONS)


def false_rejections() -> None:
    print(f"candidates exactly at the threshold that are pruned ({POPULATIONS} populations)")
    print(f"{'scores':24} {'size':>6} {'method':8}", *(f"{a:>9}" for a in ERROR_PROBABILITIES))
    worst = dict.fromkeys(ERROR_PROBABILITIES, 0.0)
    for size in SIZES:
        for name, draw, methods in _scores():
            shares = _shares(size, draw, methods)
            for method, found in shares.items():
                print(f"{name:24} {size:6} {method:8}", *(f"{f:9.5f}" for f in found), flush=True)
                for alpha, share in zip(ERROR_PROBABILITIES, found, strict=True):
                    worst[alpha] = max(worst[alpha], share)
    for alpha, share in worst.items():
        # A true share of alpha gives more than this once in a thousand times.
        allowed = alpha + 3.1 * np.sqrt(alpha * (1 - alpha) / POPULATIONS)
        print(f"at {alpha}: at most {share:.5f}", "" if share <= allowed else "TOO MANY")


def samples_until_rejection(size: int = 10_000, populations: int = 400) -> None:
    print(f"\nmedian samples until a candidate is pruned: {size} samples, baseline {BASELINE},")
    print(f"at most {LOSS} below it, error probability 0.001, {populations} orders")
    print(f"{'points low':>10} {'batch':>6} {'paired':>8} {'unpaired':>8} {'exact':>8}")
    populations = min(populations, POPULATIONS)
    for low in (0.02, 0.05, 0.08, 0.10):
        for batch in (BATCH, 8):
            tests = _tests(size, np.full(populations, BASELINE - LOSS), BASELINE)
            found = {name: np.full(populations, size) for name in (*tests, "exact")}
            draw = _binary(low + 0.02, low)
            _, _, groups = draw(size, batch, populations, np.random.default_rng(1))
            for samples, total, baseline in groups:
                rejections = _rejections(tests, samples, total, baseline, (0.001,))
                for name, (rejected,) in rejections.items():
                    first = rejected & (found[name] == size)
                    found[name][first] = samples
            medians = (f"{np.median(found[name]):8.0f}" for name in found)
            print(f"{100 * low:10.0f} {batch:6}", *medians, flush=True)


Draw = Callable[[int, int, int, np.random.Generator], tuple[Array, Array, Groups]]
"""From a size, a batch and a number of populations: their means, the baselines', the groups."""


def _scores() -> Iterator[tuple[str, Draw, tuple[str, ...]]]:
    for rate in DISAGREEMENTS:
        # Alone, the candidate looks the same whatever the rate.
        methods = ("paired", "unpaired", "exact") if rate == DISAGREEMENTS[0] else ("paired",)
        yield f"binary, {100 * rate:.0f}% disagree", _binary(rate, LOSS), methods
    yield "floats", _floats, ("paired", "unpaired", "exact")


def _binary(rate: float, low: float) -> Draw:
    def draw(
        size: int, batch: int, populations: int, rng: np.random.Generator
    ) -> tuple[Array, Array, Groups]:
        lost = round(size * (rate + low) / 2)
        won = round(size * (rate - low) / 2)
        both = round(size * BASELINE) - lost
        counts = np.tile([both, lost, won], (populations, 1)).T

        def groups() -> Groups:
            left, seen = counts.copy(), 0
            while seen < size:
                drawn, rest = min(batch, size - seen), size - seen
                unassigned, others = np.full(populations, drawn), np.full(populations, rest)
                for kind in left:  # A multivariate hypergeometric draw, one kind at a time.
                    others = others - kind
                    found = rng.hypergeometric(kind, others, unassigned)
                    unassigned = unassigned - found
                    kind -= found
                seen += drawn
                got = (counts - left).astype(float)
                yield seen, got[0] + got[2], got[0] + got[1]

        means = np.full(populations, (both + won) / size)
        return means, np.full(populations, (both + lost) / size), groups()

    return draw


def _floats(
    size: int, batch: int, populations: int, rng: np.random.Generator
) -> tuple[Array, Array, Groups]:
    """Scores as of overlaps of masks: high with a tail; the candidate's are near them."""
    starts = np.arange(0, size, batch)
    sums = np.empty((2, populations, len(starts)))
    for i in range(populations):  # Independent draws: their order is a random one.
        baseline = np.cbrt(rng.random(size))
        candidate = np.clip(baseline - 0.02 + 0.1 * rng.standard_normal(size), 0, 1)
        sums[0, i] = np.add.reduceat(candidate, starts)
        sums[1, i] = np.add.reduceat(baseline, starts)
    totals = sums.cumsum(axis=-1)
    steps = [*starts[1:].tolist(), size]
    groups = ((step, totals[0, :, k], totals[1, :, k]) for k, step in enumerate(steps))
    return totals[0, :, -1] / size, totals[1, :, -1] / size, groups


def _tests(
    size: int, threshold: Array, baseline: Array | float, methods: tuple[str, ...] = ()
) -> dict[str, UniformThresholdTest]:
    return {
        name: UniformThresholdTest(size, threshold, baseline=given)
        for name, given in (("paired", baseline), ("unpaired", None))
        if not methods or name in methods
    }


def _rejections(
    tests: dict[str, UniformThresholdTest],
    samples: int,
    total: Array,
    baseline: Array,
    error_probabilities: tuple[float, ...],
) -> dict[str, list[Array]]:
    for name, test in tests.items():
        test.update(samples, total, baseline if name == "paired" else None)
    found = {name: [t.rejects(a) for a in error_probabilities] for name, t in tests.items()}
    # No wealth is as large as that.
    exact = next(iter(tests.values())).rejects(1e-300)
    return {**found, "exact": [exact for _ in error_probabilities]}


def _shares(size: int, draw: Draw, methods: tuple[str, ...]) -> dict[str, Array]:
    """The share of populations that are rejected, by method and error probability."""
    chunks = [min(AT_ONCE, POPULATIONS - begin) for begin in range(0, POPULATIONS, AT_ONCE)]
    seeds = np.random.SeedSequence(size).spawn(len(chunks))

    def simulate(populations: int, seed: np.random.SeedSequence) -> dict[str, Array]:
        rng = np.random.default_rng(seed)
        threshold, baseline, groups = draw(size, BATCH, populations, rng)
        tests = _tests(size, threshold, baseline, methods)
        rejected = {
            name: np.zeros((len(ERROR_PROBABILITIES), populations), bool) for name in methods
        }
        for samples, total, of_baseline in groups:
            found = _rejections(tests, samples, total, of_baseline, ERROR_PROBABILITIES)
            for name in methods:
                rejected[name] |= found[name]
        return {name: r.sum(axis=1) for name, r in rejected.items()}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(simulate, chunks, seeds))
    return {name: sum(r[name] for r in results) / POPULATIONS for name in methods}
