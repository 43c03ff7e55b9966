"""How often tests sample by sample give up candidates that just meet the criterion.

The test that trials use, on its own order for each population, looked at after every batch of 32.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
import multiprocessing
import os
import time

import numpy as np

from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import WeightedThresholdTest
from optuna_quant.sequential import difficulty_levels


Array = np.ndarray
Draw = Callable[[int, np.random.Generator], tuple[Array, Array]]
"""From a size: the scores of a candidate and of the baseline, the hardest sample first."""

BATCH = 32
BASELINE = 0.9
LOSS = 0.01
ERROR_PROBABILITIES = (0.05, 0.001)
SIZES = (100, 1000, 10_000, 50_000)
AT_ONCE = 125


def binary(
    size: int, rng: np.random.Generator, *, rate: float, low: float, tilt: float = 2.0
) -> tuple[Array, Array]:
    """Right and wrong; the candidate differs more often on hard samples, for a positive tilt.

    With 2 it differs as often as the weights of the samples suppose.
    """
    lost, won = round(size * (rate + low) / 2), round(size * (rate - low) / 2)
    part = (np.arange(size) + 0.5) / size
    # The smallest of these are drawn like balls of different weights.
    flips = np.argsort(rng.exponential(size=size) * (part + 0.05) ** tilt)
    baseline = np.ones(size)
    baseline[flips[lost : lost + won]] = 0.0
    others = flips[lost + won :]
    wrong = max(0, size - round(BASELINE * size) - won)
    baseline[rng.permutation(others)[:wrong]] = 0.0
    candidate = baseline.copy()
    candidate[flips[:lost]] = 0.0
    candidate[flips[lost : lost + won]] = 1.0
    return candidate, baseline


def floats(size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """As of overlaps of masks: high with a tail, worst on hard samples."""
    baseline = np.cbrt(np.sort(rng.random(size)))
    noise = 0.3 * rng.standard_normal(size) * (1 - baseline)
    return np.clip(baseline - 0.02 + noise, 0, 1), baseline


def population_of(
    baseline: Array, *, weighted: bool, seed: int, method: str, error_probability: float
) -> Population:
    size = len(baseline)
    margins = np.arange(size).astype(float) if weighted else None
    order = SampleOrder.draw(difficulty_levels(margins, size), seed=seed)
    return Population(
        order=order,
        baseline=baseline,
        bounds=(0.0, 1.0),
        method=method,
        error_probability=error_probability,
    )


def samples_until_failure(population: Population, threshold: float, scores: Array) -> int | None:
    """After how many samples the test gives up; :obj:`None` if it never does."""
    test = WeightedThresholdTest(population, threshold)
    in_order = population.normalized(scores[population.order.indices])
    gains = in_order - population.normalized_baseline
    differ = np.flatnonzero(gains)
    is_dense = len(differ) > len(scores) / 4
    ends = np.searchsorted(differ, np.arange(BATCH, len(scores) + BATCH, BATCH)).tolist()
    begin = 0
    for start, end in zip(range(0, len(scores), BATCH), ends, strict=True):
        batch = in_order[start : start + BATCH]
        if is_dense:
            test.update(batch)
        else:
            others = differ[begin:end]
            pairs = zip((others - start).tolist(), gains[others].tolist(), strict=True)
            test.agree(len(batch), list(pairs))
        if test.fails:
            return test.seen
        begin = end
    return None


def false_failures(
    draw: Draw, size: int, weighted: bool, method: str, job: tuple[int, int]
) -> list[int]:
    """How many of some populations fail though their mean is the threshold, at each error."""
    seed, orders = job
    rng = np.random.default_rng([size, seed])
    found = [0 for _ in ERROR_PROBABILITIES]
    for _ in range(orders):
        candidate, baseline = draw(size, rng)
        number = int(rng.integers(2**31))
        for k, error in enumerate(ERROR_PROBABILITIES):
            population = population_of(
                baseline, weighted=weighted, seed=number, method=method, error_probability=error
            )
            if samples_until_failure(population, float(candidate.mean()), candidate) is None:
                break  # Who is not given up at one error probability is not at a smaller one.
            found[k] += 1
    return found


def run(populations: int) -> None:
    start = time.monotonic()
    # A forked child of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        _print_false_failures(pool, populations)
        _print_samples_until_failure(pool, min(populations, 100))
    print(f"({time.monotonic() - start:.0f} s)")


def _print_false_failures(pool: ProcessPoolExecutor, populations: int) -> None:
    print(
        "\nsample by sample: candidates exactly at the threshold that fail (a population for each "
        f"order, looks after every {BATCH})"
    )
    title = f"{'order':9} {'scores':32} {'method':8} {'size':>6} {'orders':>7}"
    print(title, *(f"{e:>9}" for e in ERROR_PROBABILITIES))
    for size in SIZES:
        for weighted, name, draw, method in _problems(size):
            chunks = [
                min(AT_ONCE, populations - begin) for begin in range(0, populations, AT_ONCE)
            ]
            one = partial(false_failures, draw, size, weighted, method)
            totals = np.sum(list(pool.map(one, enumerate(chunks))), axis=0)
            order = "weighted" if weighted else "uniform"
            shares = totals / populations
            # A true share of the limit gives more than this once in a thousand times.
            limits = np.array(ERROR_PROBABILITIES)
            allowed = limits + 3.1 * np.sqrt(limits * (1 - limits) / populations)
            print(
                f"{order:9} {name:32} {method:8} {size:6} {populations:7}",
                *(f"{share:9.5f}" for share in shares),
                "TOO MANY" if (shares > allowed).any() else "",
                flush=True,
            )


def _problems(size: int) -> list[tuple[bool, str, Draw, str]]:
    usual = partial(binary, rate=0.11, low=LOSS)
    name = "binary, 11% disagree"
    problems: list[tuple[bool, str, Draw, str]] = [
        (True, name, usual, "paired"),
        (False, name, usual, "paired"),
    ]
    if size <= 1000:
        rare, misled = partial(usual, rate=0.03), partial(usual, tilt=-1.0)
        problems += [
            (True, name, usual, "unpaired"),
            (False, name, usual, "unpaired"),
            (True, "binary, 3% disagree", rare, "paired"),
            (True, "binary, 11%, on easy samples", misled, "paired"),
            (True, "floats", floats, "paired"),
            (False, "floats", floats, "paired"),
        ]
    return problems


def _print_samples_until_failure(
    pool: ProcessPoolExecutor, orders: int, size: int = 10_000
) -> None:
    print(
        f"\nsample by sample: median samples until a candidate fails: {size} samples, baseline "
        f"{BASELINE}, at most {LOSS} below it, error probability 0.001, {orders} orders"
    )
    ways = [(weighted, method) for method in ("paired", "unpaired") for weighted in (False, True)]
    titles = [f"{m}, {'weighted' if w else 'uniform'}" for w, m in ways]
    print(f"{'points low':>10}", *(f"{title:>19}" for title in titles))
    for tilt in (0.0, 2.0):
        print(f"it differs with the part of harder samples to the power of {-tilt:g}:")
        for low in (0.02, 0.05, 0.08, 0.10):
            draw = partial(binary, rate=low + 0.02, low=low, tilt=tilt)
            medians = []
            for weighted, method in ways:
                one = partial(_until_failure, draw, size, weighted, method)
                medians.append(float(np.median(list(pool.map(one, range(orders), chunksize=10)))))
            print(f"{100 * low:10.0f}", *(f"{m:19.0f}" for m in medians), flush=True)


def _until_failure(draw: Draw, size: int, weighted: bool, method: str, seed: int) -> int:
    candidate, baseline = draw(size, np.random.default_rng(seed))
    population = population_of(
        baseline, weighted=weighted, seed=seed, method=method, error_probability=0.001
    )
    return samples_until_failure(population, float(baseline.mean()) - LOSS, candidate) or size
