"""Close connections that were not used for a while."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time


class IdleConnections:
    """Closes connections once they were not used for some time, in a thread of its own.

    A server takes only so many, and a worker needs its own for milliseconds between evaluations
    that take seconds or hours.

    Args:
        close:
            Closes those that are not in use right now; may be called at any time.
        seconds:
            For how long they must not have been used.
    """

    def __init__(self, close: Callable[[], None], seconds: float) -> None:
        self._close = close
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last = 0.0
        self._thread: threading.Thread | None = None

    def used(self) -> None:
        """Note that one was used just now."""
        with self._lock:
            self._last = time.monotonic()
            # Of a process that was forked the thread is not there.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        left = self._seconds
        while left > 0:
            time.sleep(left)
            with self._lock:
                left = self._last + self._seconds - time.monotonic()
                if left <= 0:
                    self._thread = None
        self._close()
