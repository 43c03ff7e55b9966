"""Pause between two looks at something that others change: short at first, then longer."""

from __future__ import annotations

import random
import time


_FIRST_SECONDS = 0.005
_LONGEST_SECONDS = 0.5
_LONGEST_IN_QUEUE_SECONDS = 10.0
_PART_OF_THE_WAY = 0.5
_SLOWEST_STEP_SECONDS = 0.02

# Not the module's own generator: workers that a user has seeded alike would all look at once.
_jitter = random.SystemRandom().uniform


class Backoff:
    """Sleep when called, longer each time while nothing changes.

    A worker that stands in a queue sleeps for half of the time that its turn is away, as the queue
    moves. So a thousand that wait do not look all the time, and the next one looks often.

    Args:
        first:
            The first pause, in seconds.
        longest:
            The longest pause, of a worker that is next, in seconds.
        factor:
            By how much each pause is longer than the one before.
        spread:
            Between which parts of a pause a random one is taken.
    """

    def __init__(
        self,
        *,
        first: float = _FIRST_SECONDS,
        longest: float = _LONGEST_SECONDS,
        factor: float = 1.5,
        spread: tuple[float, float] = (0.8, 1.2),
    ) -> None:
        self._first = self._seconds = first
        self._longest = longest
        self._factor = factor
        self._spread = spread
        self._ahead = 0
        self._since = time.monotonic()
        self._each = _SLOWEST_STEP_SECONDS

    def __call__(self, *, ahead: int = 0) -> None:
        """Sleep.

        Args:
            ahead:
                How many others come first.
        """
        now = time.monotonic()
        if ahead != self._ahead:
            if ahead < self._ahead:
                # The quickest that was seen: one that oversleeps holds up all behind it.
                self._each = min(self._each, (now - self._since) / (self._ahead - ahead))
            self._ahead, self._since, self._seconds = ahead, now, self._first
        away = min(_PART_OF_THE_WAY * self._each * (ahead - 1), _LONGEST_IN_QUEUE_SECONDS)
        time.sleep(max(self._seconds, away) * _jitter(*self._spread))
        self._seconds = min(self._factor * self._seconds, self._longest)
