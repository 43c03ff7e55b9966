"""Values that one worker computes for all workers of a study.

Optuna's storages cannot compare and set an attribute of a study in one step, so the worker is
settled by Lamport's bakery algorithm, for which plain reads and writes are enough: a worker says
that it is choosing a position in the queue, takes one behind all that it sees, and has to let
through every worker whose position is lower. Each writes to its own attributes only. A position is
a lease: it lasts as long as its worker writes heartbeats.

What this promises: on a storage whose reads show every write that has ended, as all of Optuna's
do, two live workers never compute the same value. It may be computed twice if a storage answers
from a stale copy, or if a worker writes no heartbeat for ``timeout`` seconds and works on after
that. Even then all later readers get one value, the first that was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import hashlib
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING
from typing import Any
import uuid

from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant.study.blobs import find_bytes
from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.computing_times import timed
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.heartbeat import HeartbeatMonitor
from optuna_quant.workers.heartbeat import HeartbeatThread
from optuna_quant.workers.heartbeat import heartbeat_interval
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    import optuna

    from optuna_quant._common.json_value import Json


_logger = get_logger(__name__)

TIMEOUT_SECONDS = 120.0
"""After how long without a heartbeat a lease is stale."""

# Between the two writes with which a worker takes its position.
_CHOOSING_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 2.0


class LeaseMonitor:
    """Tells which leases belong to live workers.

    A worker on this machine is looked up among the processes. The lease of any other one is stale
    when it has not changed for ``timeout`` seconds.

    Args:
        timeout:
            In seconds.
    """

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout
        self._heartbeats = HeartbeatMonitor(timeout)

    def is_alive(self, lease: Mapping[str, Any]) -> bool:
        """Whether the worker of a lease lives, as far as is known."""
        if is_known_dead(lease["worker"]):
            return False
        return not self._heartbeats.is_stale(lease["id"], dict(lease))


class ComputeOnce:
    """Bytes that a study keeps and that one of its workers computes.

    If the worker that computes fails or dies, another one takes over.

    Args:
        study:
            The study.
        name:
            What the value is kept under. It has to tell apart all that the value depends on: the
            first value that is kept under a name stays.
        monitor:
            Tells which leases are stale. To look at a value again and again with new objects,
            give them the same one.
    """

    def __init__(
        self, study: optuna.Study, name: str, *, monitor: LeaseMonitor | None = None
    ) -> None:
        self._study = study
        self.name = name
        self._monitor = LeaseMonitor() if monitor is None else monitor
        self._prefix = f"optuna_quant:{name}:claim:"
        ticket = hashlib.sha256(this_worker().encode()).hexdigest()[:16]
        self._own_key = self._prefix + ticket

    def read(self) -> bytes | None:
        """The value; :obj:`None` if the study does not hold it yet."""
        return read_bytes(self._study, self.name)

    def get(self, compute: Callable[[], bytes]) -> bytes:
        """The value, computed if need be; waits while another worker computes it.

        Args:
            compute:
                Computes the value.

        Raises:
            Exception:
                What ``compute`` raises.
        """
        backoff = Backoff(longest=_LONGEST_PAUSE_SECONDS)
        while (value := self.offer(compute)) is None:
            backoff()
        return value

    def offer(self, compute: Callable[[], bytes]) -> bytes | None:
        """As :meth:`get`, but :obj:`None` if another worker computes the value."""
        attrs = _optuna.study_system_attrs(self._study)
        value = find_bytes(attrs, self.name, study_name=self._study.study_name)
        if value is not None:
            return value
        if self._others(attrs):
            return None
        with _Lease(self._study, self._own_key, self._monitor.timeout) as lease:
            attrs = _optuna.study_system_attrs(self._study)
            others = self._others(attrs)
            lease.take_position(1 + max((position for _, position in others), default=0))
            if not self._comes_first(lease.position):
                return None
            # A worker that computed it before kept it before it gave up its lease.
            value = self.read()
            if value is not None:
                return value
            with timed(self._study, self.name):
                computed = compute()
            return self._keep(computed)

    def _keep(self, value: bytes) -> bytes:
        """Keep a value unless there is one already, and return the kept value."""
        kept = self.read()
        if kept is None:
            write_bytes(self._study, self.name, value)
            kept = self.read()
        return value if kept is None else kept

    def _others(self, attrs: Mapping[str, Any]) -> list[tuple[str, int]]:
        """The leases of other live workers, each with its position; 0 while that is chosen."""
        return [
            (key, lease["position"])
            for key, lease in attrs.items()
            if key.startswith(self._prefix)
            and key != self._own_key
            and lease is not None
            and self._monitor.is_alive(lease)
        ]

    def _comes_first(self, position: int) -> bool:
        choosing: set[str] = set()
        since = time.monotonic()
        backoff = Backoff()
        while True:
            others = self._others(_optuna.study_system_attrs(self._study))
            own = (position, self._own_key)
            if any(theirs > 0 and (theirs, key) < own for key, theirs in others):
                return False
            now_choosing = {key for key, theirs in others if not theirs}
            if not now_choosing:
                return True
            if now_choosing != choosing:
                choosing, since = now_choosing, time.monotonic()
            elif time.monotonic() - since > _CHOOSING_SECONDS:
                return False  # They have got stuck, or have died: look again later.
            backoff()


class _Lease:
    """A worker's lease on a value, with heartbeats from a thread as long as it is held."""

    def __init__(self, study: optuna.Study, key: str, timeout: float) -> None:
        self._study = study
        self._key = key
        self._count = 0
        self.position = 0
        self._lock = threading.Lock()
        self._heartbeats = HeartbeatThread(
            self._beat, interval=heartbeat_interval(timeout), name="optuna_quant lease"
        )
        self._worker = this_worker()
        self._id = uuid.uuid4().hex[:16]  # A later lease of this worker is another one.

    def __enter__(self) -> _Lease:
        self._write()
        self._heartbeats.start()
        return self

    def take_position(self, position: int) -> None:
        """Take a position in the queue."""
        with self._lock:
            self.position = position
            self._write()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._heartbeats.stop()
        with self._lock:  # So that no heartbeat comes after it.
            try:
                _optuna.set_study_system_attr(self._study, self._key, None)
            except Exception as failure:
                # Without heartbeats the lease ends by itself; the value must not be lost by it.
                _logger.debug(f"The lease {self._key!r} could not be given up: {failure!r}")

    def _write(self) -> None:
        lease: Json = {
            "id": self._id,
            "worker": self._worker,
            "position": self.position,
            "heartbeat": self._count,
        }
        _optuna.set_study_system_attr(self._study, self._key, lease)

    def _beat(self) -> None:
        with self._lock:
            if not self._heartbeats.is_stopped:
                self._count += 1
                self._write()
