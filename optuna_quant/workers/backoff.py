"""Pauses between looks at a storage: short at first, so that nobody waits long for little."""

from __future__ import annotations

import random
import time


_FIRST_SECONDS = 0.005
_LONGEST_SECONDS = 0.5
_LONGEST_IN_QUEUE_SECONDS = 10.0
_PART_OF_THE_WAY = 0.5
_SLOWEST_TURN_SECONDS = 0.02


class Pause:
    """Sleeps when it is called, longer each time while nothing changes, up to half a second.

    Who stands in a queue sleeps for half of the time that its turn is away, as it moves, so that
    a thousand that wait do not look all the time, and whoever is next looks often.

    Args:
        longest:
            The longest pause of one that is next, in seconds.
    """

    def __init__(self, *, longest: float = _LONGEST_SECONDS) -> None:
        self._longest = longest
        self._seconds = _FIRST_SECONDS
        self._ahead = 0
        self._since = time.monotonic()
        self._each = _SLOWEST_TURN_SECONDS

    def __call__(self, *, ahead: int = 0) -> None:
        """Sleep.

        Args:
            ahead:
                How many others come first.
        """
        now = time.monotonic()
        if ahead != self._ahead:
            if ahead < self._ahead:
                # The quickest that was seen: who sleeps through its turn holds up all behind it.
                self._each = min(self._each, (now - self._since) / (self._ahead - ahead))
            self._ahead, self._since, self._seconds = ahead, now, _FIRST_SECONDS
        away = min(_PART_OF_THE_WAY * self._each * (ahead - 1), _LONGEST_IN_QUEUE_SECONDS)
        time.sleep(max(self._seconds, away) * random.uniform(0.8, 1.2))
        self._seconds = min(1.5 * self._seconds, self._longest)
