"""Heartbeats show which workers are alive, across machines.

A worker changes something that others can read, now and then. The others watch whether it changes,
by their own clock only, so that clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from dataclasses import dataclass
import threading
import time

from optuna.logging import get_logger


_logger = get_logger(__name__)

_BEATS_PER_TIMEOUT = 6
_LOOKS_PER_TIMEOUT = 3
_LONGEST_INTERVAL_SECONDS = 30.0
_SHORTEST_INTERVAL_SECONDS = 0.05


def heartbeat_interval(timeout: float | None) -> float:
    """Every how many seconds to write a heartbeat that others expect within a timeout."""
    if timeout is None:
        return _LONGEST_INTERVAL_SECONDS
    interval = min(_LONGEST_INTERVAL_SECONDS, timeout / _BEATS_PER_TIMEOUT)
    return max(interval, _SHORTEST_INTERVAL_SECONDS)


@dataclass
class _LastHeartbeat:
    """The last change of one source of heartbeats."""

    heartbeat: object
    silent: float  # Seconds, as far as we were looking.
    looked: float


class HeartbeatMonitor:
    """Tells which heartbeats have not changed for longer than a timeout.

    Only time during which this process was looking counts: after a storage could not be reached
    for an hour, nothing is stale.

    Args:
        timeout:
            In seconds.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._seen: dict[Hashable, _LastHeartbeat] = {}

    def is_stale(self, source: Hashable, heartbeat: object) -> bool:
        """Whether a source has been silent for the timeout.

        Args:
            source:
                Which one.
            heartbeat:
                What it shows now.
        """
        now = time.monotonic()
        seen = self._seen.get(source)
        if seen is None or seen.heartbeat != heartbeat:
            self._seen[source] = _LastHeartbeat(heartbeat, 0.0, now)
            return False
        seen.silent += min(now - seen.looked, self.timeout / _LOOKS_PER_TIMEOUT)
        seen.looked = now
        return seen.silent >= self.timeout

    def forget_all_but(self, sources: Collection[Hashable]) -> None:
        """Forget the sources that are not among these."""
        for source in self._seen.keys() - set(sources):
            del self._seen[source]


class HeartbeatThread:
    """Calls a function at intervals, in a thread, until it is stopped.

    An error is no end: the storage may be back at the next heartbeat.

    Args:
        beat:
            Writes the heartbeat.
        interval:
            In seconds; the first call is after that time.
        name:
            The name of the thread.
    """

    def __init__(self, beat: Callable[[], None], *, interval: float, name: str) -> None:
        self._beat = beat
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let no further call begin; one that has started may still be going on."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped.is_set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._beat()
            except Exception as error:
                _logger.debug(f"No heartbeat could be written: {error!r}")
