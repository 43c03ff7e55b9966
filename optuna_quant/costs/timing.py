"""Measure several models in turn, so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import itertools
import math
import random
import statistics
import time


_QUICKEST = 0.3

_SD_OF_MAD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""

_SD_OF_MEDIAN = 1.2533
"""The standard error of a median over that of a mean, for many normally distributed values."""


@dataclass(frozen=True)
class Timing:
    """The time that one of several things takes.

    Args:
        seconds:
            The median of its runs.
        spread:
            The standard deviation of one run, estimated from the median absolute deviation.
        noise:
            The standard error of the median, after what slowed all of them down in a round at a
            time has been taken out.
        runs:
            The seconds of each run.
    """

    seconds: float
    spread: float
    noise: float
    runs: tuple[float, ...]

    @property
    def quickest(self) -> float:
        """The mean of its quickest runs: what it takes on a machine with nothing else to do."""
        return quickest(self.runs)


def quickest(runs: Sequence[float]) -> float:
    """The mean of the quickest three tenths of some runs, of one at least.

    Args:
        runs:
            The seconds of each run.
    """
    return statistics.fmean(sorted(runs)[: math.ceil(_QUICKEST * len(runs))])


def measure_interleaved(
    runs: Sequence[Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """The time that each of several things takes, measured in turn.

    They run in rounds, so that whatever slows the machine down for a while slows all of them down;
    the median leaves out what hit one of them alone. The order differs from round to round, and
    none runs twice in a row: what a run leaves in the caches makes the next one faster if it is
    alike, and slower if it is large.

    Args:
        runs:
            The things to run.
        rounds:
            How often each is measured.
        warmup:
            How often each is run before that.
        clock:
            Gives the time in seconds.

    Returns:
        The median time of each, in seconds.

    Raises:
        ValueError:
            If ``rounds`` is less than 1 or ``warmup`` is negative.
    """
    timings = time_interleaved(runs, rounds=rounds, warmup=warmup, clock=clock)
    return [timing.seconds for timing in timings]


def time_interleaved(
    runs: Sequence[Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    seconds: float | None = None,
    fewest: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """As :func:`measure_interleaved`, with how far the times can be trusted.

    Args:
        runs:
            The things to run.
        rounds:
            How often each is measured, at most.
        warmup:
            How often each is run before that.
        seconds:
            After how many seconds, as they pass, no further round is started; None for no limit.
        fewest:
            How many rounds there are whatever the limit says.
        clock:
            Gives the time in seconds.

    Raises:
        ValueError:
            If ``rounds`` is less than 1 or ``warmup`` is negative.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, but got {rounds}.")
    if warmup < 0:
        raise ValueError(f"warmup must not be negative, but got {warmup}.")
    first = time.perf_counter()
    for _ in range(warmup):
        for run in runs:
            run()
    times: list[list[float]] = [[] for _ in runs]
    for number, order in enumerate(itertools.islice(_orders(len(runs)), rounds)):
        if seconds is not None and number >= fewest and time.perf_counter() - first > seconds:
            break
        for index in order:
            start = clock()
            runs[index]()
            times[index].append(clock() - start)
    return summarize(times)


def _orders(count: int) -> Iterator[list[int]]:
    """The order in each round, the same at each call: 0 1, 0 1, ... for two."""
    generator = random.Random(0)
    order = list(range(count))
    while True:
        yield order
        last, order = order[-1], order.copy()
        if count > 2:
            generator.shuffle(order)
            while order[0] == last:
                generator.shuffle(order)


def summarize(times: Sequence[Sequence[float]]) -> list[Timing]:
    """Summarize the times of several things, measured in rounds.

    Args:
        times:
            The seconds of each thing in each round.
    """
    if not times:
        return []
    medians = [statistics.median(mine) for mine in times]
    # How slow the machine was in each round.
    pace = [
        statistics.median(
            mine[k] / median for mine, median in zip(times, medians, strict=True) if median > 0
        )
        if any(median > 0 for median in medians)
        else 1.0
        for k in range(len(times[0]))
    ]
    found = []
    for mine, median in zip(times, medians, strict=True):
        level = [each / p if p > 0 else each for each, p in zip(mine, pace, strict=True)]
        error = _deviation(level if len(times) > 2 else mine) / math.sqrt(len(mine))
        found.append(Timing(median, _deviation(mine), _SD_OF_MEDIAN * error, tuple(mine)))
    return found


def _deviation(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return _SD_OF_MAD * statistics.median(abs(value - middle) for value in values)
