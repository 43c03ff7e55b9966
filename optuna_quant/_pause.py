"""Pauses between looks at a storage: short at first, so that nobody waits long for little."""

from __future__ import annotations

import time


_FIRST_SECONDS = 0.01
_LONGEST_SECONDS = 0.5


class Pause:
    """Sleeps when it is called, each time twice as long as before, up to half a second."""

    def __init__(self) -> None:
        self._seconds = _FIRST_SECONDS

    def __call__(self) -> None:
        """Sleep."""
        time.sleep(self._seconds)
        self._seconds = min(2 * self._seconds, _LONGEST_SECONDS)
