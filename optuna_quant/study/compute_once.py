"""Values that one worker computes for all workers of a study.

Optuna's storages cannot compare and set an attribute of a study in one step, so who computes is
settled by Lamport's bakery algorithm, for which plain reads and writes are enough: a worker says
that it is choosing a turn, takes a turn above all that it sees, and has to let through every
worker whose turn is lower. Each writes to its own attributes only.

What this promises: on a storage whose reads show every write that has ended, as all of Optuna's
do, two live workers never compute the same value. It may be computed twice if a storage answers
from a stale copy, or if a worker gives no sign of life for ``patience`` seconds and works on after
that. Even then all later readers get one value, the first that was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
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
from optuna_quant.workers.backoff import Pause
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    import optuna


_logger = get_logger(__name__)

PATIENCE_SECONDS = 120.0
"""After how long without a sign of life a worker is taken for dead."""

_SIGNS_PER_PATIENCE = 12
_LOOKS_PER_PATIENCE = 3
# Between the two writes with which a worker takes its turn.
_CHOOSING_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 2.0


class ClaimWatch:
    """Tells which claims are those of live workers.

    A worker on this machine is looked up among the processes. Any other is taken for dead when its
    claim has not changed for ``patience`` seconds by this process's own clock, so clocks need not
    agree. Only time in which this process was looking counts: a storage that could not be reached
    for an hour makes nobody dead.

    Args:
        patience:
            In seconds.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        self._seen: dict[str, _Seen] = {}

    def is_alive(self, claim: Mapping[str, Any]) -> bool:
        """Whether the worker of a claim lives, as far as is known."""
        if is_known_dead(claim["worker"]):
            return False
        now = time.monotonic()
        seen = self._seen.get(claim["id"])
        if seen is None or seen.claim != claim:
            self._seen[claim["id"]] = _Seen(dict(claim), 0.0, now)
            return True
        seen.silent += min(now - seen.looked, self.patience / _LOOKS_PER_PATIENCE)
        seen.looked = now
        return seen.silent < self.patience


@dataclass
class _Seen:
    """What a claim has shown of its worker."""

    claim: dict[str, Any]
    silent: float  # Seconds, as far as we were looking.
    looked: float


class SharedValue:
    """Bytes that a study keeps and that one of its workers computes.

    If the worker that computes fails or dies, another one takes over.

    Args:
        study:
            The study.
        name:
            What the value is kept under. It has to tell apart all that the value depends on: the
            first value that is kept under a name stays.
        watch:
            Tells which workers live. Whoever looks at a value again and again with new objects
            gives them the same one.
    """

    def __init__(self, study: optuna.Study, name: str, *, watch: ClaimWatch | None = None) -> None:
        self._study = study
        self.name = name
        self._watch = ClaimWatch() if watch is None else watch
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
        pause = Pause(longest=_LONGEST_PAUSE_SECONDS)
        while (value := self.offer(compute)) is None:
            pause()
        return value

    def offer(self, compute: Callable[[], bytes]) -> bytes | None:
        """As :meth:`get`, but :obj:`None` if another worker computes the value."""
        attrs = _optuna.study_system_attrs(self._study)
        value = find_bytes(attrs, self.name, study_name=self._study.study_name)
        if value is not None:
            return value
        if self._others(attrs):
            return None
        with _Claim(self._study, self._own_key, self._watch.patience) as claim:
            attrs = _optuna.study_system_attrs(self._study)
            others = self._others(attrs)
            claim.take_turn(1 + max((turn for _, turn in others), default=0))
            if not self._comes_first(claim.turn):
                return None
            # Whoever computed it before kept it before it gave up its turn.
            value = self.read()
            return self._keep(compute()) if value is None else value

    def _keep(self, value: bytes) -> bytes:
        """Keep a value unless there is one, and return the one that is kept."""
        kept = self.read()
        if kept is None:
            write_bytes(self._study, self.name, value)
            kept = self.read()
        return value if kept is None else kept

    def _others(self, attrs: Mapping[str, Any]) -> list[tuple[str, int]]:
        """The claims of other live workers, each with its turn: 0 for who chooses one."""
        return [
            (key, claim["turn"])
            for key, claim in attrs.items()
            if key.startswith(self._prefix)
            and key != self._own_key
            and claim is not None
            and self._watch.is_alive(claim)
        ]

    def _comes_first(self, turn: int) -> bool:
        choosing: set[str] = set()
        since = time.monotonic()
        pause = Pause()
        while True:
            others = self._others(_optuna.study_system_attrs(self._study))
            if any(theirs > 0 and (theirs, key) < (turn, self._own_key) for key, theirs in others):
                return False
            now_choosing = {key for key, theirs in others if not theirs}
            if not now_choosing:
                return True
            if now_choosing != choosing:
                choosing, since = now_choosing, time.monotonic()
            elif time.monotonic() - since > _CHOOSING_SECONDS:
                return False  # They have got stuck, or have died: look again later.
            pause()


class _Claim:
    """A worker's claim on a value, with signs of life from a thread as long as it is held."""

    def __init__(self, study: optuna.Study, key: str, patience: float) -> None:
        self._study = study
        self._key = key
        self._interval = patience / _SIGNS_PER_PATIENCE
        self._sign = 0
        self.turn = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._give_signs, name="optuna_quant claim", daemon=True
        )
        self._worker = this_worker()
        self._id = uuid.uuid4().hex[:16]  # A later claim of this worker is another one.

    def __enter__(self) -> _Claim:
        self._write()
        self._thread.start()
        return self

    def take_turn(self, turn: int) -> None:
        """Take a turn."""
        with self._lock:
            self.turn = turn
            self._write()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with self._lock:  # So that no sign comes after it.
            try:
                _optuna.set_study_system_attr(self._study, self._key, None)
            except Exception as failure:
                # Without signs of life the claim ends by itself; the value must not be lost by it.
                _logger.debug(f"The claim {self._key!r} could not be given up: {failure!r}")

    def _write(self) -> None:
        claim = {
            "id": self._id,
            "worker": self._worker,
            "turn": self.turn,
            "sign": self._sign,
        }
        _optuna.set_study_system_attr(self._study, self._key, claim)

    def _give_signs(self) -> None:
        while not self._ended.wait(self._interval):
            with self._lock:
                if self._ended.is_set():
                    return
                self._sign += 1
                try:
                    self._write()
                except Exception as error:  # The storage may be back at the next sign.
                    _logger.debug(f"No sign of life could be given: {error!r}")
