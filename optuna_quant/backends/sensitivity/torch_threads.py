"""Run torch in one thread where more are no quicker.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import math
import threading
import time
from typing import TypeVar

import torch


T = TypeVar("T")

# The limit is the process's: two threads that set and reset it at the same time would end with
# the wrong one.
_lock = threading.Lock()

# How often one thread and several are tried; the first time counts for neither, and the quicker
# of the others counts.
_TRIES = 3
# Several threads must be quicker by so much.
_WORTH = 0.8


class QuickestThreads:
    """Runs pieces of work of about the same size, the first few in one thread and in several.

    With small tensors threads spend their time waiting for each other. On a machine that has
    other work to do that takes a hundred times as long as one thread.

    Args:
        clock:
            Gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._several = torch.get_num_threads()
        self._seconds: dict[int, list[float]] = {1: [], self._several: []}

    @property
    def threads(self) -> int:
        """With how many threads the next piece is run."""
        if self._several == 1:
            return 1
        one, several = self._seconds[1], self._seconds[self._several]
        for tried, threads in ((one, 1), (several, self._several)):
            if len(tried) < _TRIES:
                # What is far too slow once is not tried again.
                is_hopeless = several and several[-1] > _TRIES * _least(one)
                return 1 if is_hopeless else threads
        return self._several if _least(several) < _WORTH * _least(one) else 1

    def run(self, work: Callable[[], T]) -> T:
        """Run a piece of work, with the number of threads that is quickest as far as is known.

        Args:
            work:
                The work.
        """
        threads = self.threads
        with _limited(threads):
            start = self._clock()
            found = work()
            self._seconds[threads].append(self._clock() - start)
        return found


def _least(seconds: list[float]) -> float:
    return min(seconds[1:] or seconds, default=math.inf)


@contextmanager
def _limited(threads: int) -> Iterator[None]:
    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
