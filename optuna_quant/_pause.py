"""Pauses between looks at a storage: short at first, so that nobody waits long for little."""

from __future__ import annotations

import random
import time


_FIRST_SECONDS = 0.005
_LONGEST_SECONDS = 0.5
_SECONDS_AHEAD = 0.005


class Pause:
    """Sleeps when it is called, longer each time while nothing changes, up to half a second.

    Args:
        longest:
            The longest pause, in seconds.
    """

    def __init__(self, *, longest: float = _LONGEST_SECONDS) -> None:
        self._longest = longest
        self._seconds = _FIRST_SECONDS
        self._ahead = 0

    def __call__(self, *, ahead: int = 0) -> None:
        """Sleep.

        Args:
            ahead:
                How many others come first. The more there are, the longer the pause, so that a
                thousand that queue do not all look all the time; whoever is next looks often.
        """
        if ahead != self._ahead:
            self._ahead, self._seconds = ahead, _FIRST_SECONDS
        seconds = max(self._seconds, min(_SECONDS_AHEAD * (ahead - 1), self._longest))
        time.sleep(seconds * random.uniform(0.75, 1.25))
        self._seconds = min(1.5 * self._seconds, self._longest)
