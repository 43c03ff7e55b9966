"""How the benchmarks take time."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
import time


def seconds(action: Callable[[], object], *, repeat: int = 5) -> float:
    """The median time of an action, after one run that is not counted."""
    action()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return median(times)


def fastest(*actions: Callable[[], object], repeat: int = 9, least: float = 1.0) -> list[float]:
    """The least time of each action, run in turn: what a busy machine adds is left out.

    Args:
        *actions:
            The actions.
        repeat:
            How often each is run, at least.
        least:
            For how many seconds, at least.
    """
    for action in actions:
        action()
    found = [float("inf")] * len(actions)
    end, rounds = time.perf_counter() + least, 0
    while rounds < repeat or time.perf_counter() < end:
        rounds += 1
        for place, action in enumerate(actions):
            start = time.perf_counter()
            action()
            found[place] = min(found[place], time.perf_counter() - start)
    return found


def alternating(*actions: Callable[[], object], repeat: int = 5) -> list[float]:
    """The median time of each action, run in turn so that a drift of the machine hits all."""
    for action in actions:
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(repeat):
        for action, found in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            found.append(time.perf_counter() - start)
    return [median(found) for found in times]
