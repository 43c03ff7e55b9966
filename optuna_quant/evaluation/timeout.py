"""End evaluations that take too long, so that neither this worker nor others hang.

Python cannot end a thread, so this is done in three steps. What evaluates sample by sample is
asked between two batches. What does not react, and any other function, gets an exception: in the
main thread by a signal, which also ends a ``time.sleep``, a lock or a wait for a child process;
in other threads as soon as they run Python code again. What does not react to that either (a call
into a library that does not come back) is given up: its trial is marked as failed, from the thread
that watches, so that the other workers continue without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
import math
import os
import signal
import threading
import time
from typing import TypeVar

from optuna.logging import get_logger

from optuna_quant._common.durations import check_seconds
from optuna_quant.study.slow_trials import long_evaluation


_logger = get_logger(__name__)

_Result = TypeVar("_Result")

# What can be asked gets this part of the timeout, and what is interrupted as much again, to react.
_GRACE_PART = 0.1
_SHORTEST_GRACE_SECONDS = 2.0
_LONGEST_GRACE_SECONDS = 30.0
_LOOKS_PER_TIMEOUT = 20
_FIRST_TOLD_SECONDS = 60.0
_LONGEST_BETWEEN_LOOKS_SECONDS = 1.0
_SHORTEST_BETWEEN_LOOKS_SECONDS = 0.05


class EvaluationTimeout(RuntimeError):
    """An evaluation took longer than its limit."""


class _Expired(BaseException):
    """Raised inside an evaluation; not an ``Exception``, which it might catch."""


@dataclass(eq=False)
class _Evaluation:
    """An evaluation that runs.

    Args:
        what:
            What is evaluated, for messages.
        give_up:
            Called with the reason, in another thread, if the evaluation cannot be ended;
            :obj:`None` if there is nothing to be done then.
        usual_seconds:
            Gives after how many seconds the evaluation is suspiciously long.
        can_be_asked:
            Whether it asks now and then whether it is late.
    """

    what: str
    give_up: Callable[[str], None] | None
    usual_seconds: Callable[[], tuple[float, str]]
    can_be_asked: bool
    thread: int = field(default_factory=threading.get_ident)
    started: float = field(default_factory=time.monotonic)
    is_active: bool = True
    is_late: bool = False
    is_interrupted: bool = False
    is_given_up: bool = False
    signal: int | None = None  # With which it is interrupted.
    told_at: float = field(default_factory=lambda: _FIRST_TOLD_SECONDS)


class EvaluationWatchdog:
    """Watches the evaluations of this process, from a thread that lives as long as they run.

    Args:
        timeout:
            After how many seconds an evaluation is ended; :obj:`None` for never.
        on_stuck:
            Called with a message, in another thread, when an evaluation that could not be ended
            was given up: its thread is lost to this process.

    Raises:
        TypeError:
            If the timeout is no number.
        ValueError:
            If it is not positive.
    """

    def __init__(
        self, timeout: float | None, *, on_stuck: Callable[[str], None] | None = None
    ) -> None:
        check_seconds("evaluation_timeout", timeout, above_zero=True)
        self._timeout = timeout
        self._on_stuck = on_stuck
        self._active: set[_Evaluation] = set()
        # Not a condition: an exception may come at any moment, and this one is entered in one.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._spared: int | None = None

    @property
    def reason(self) -> str:
        """Why an evaluation is ended."""
        return f"it took longer than evaluation_timeout={self._timeout:g} s"

    def run(
        self,
        evaluate: Callable[[Callable[[], None]], _Result],
        *,
        what: str,
        give_up: Callable[[str], None] | None,
        usual_seconds: Callable[[], tuple[float, str]],
        can_be_asked: bool = False,
    ) -> _Result:
        """Evaluate.

        Args:
            evaluate:
                Is given a function that raises if it is late.
            what:
                What is evaluated, for messages.
            give_up:
                Called with the reason, in another thread, if the evaluation cannot be ended;
                :obj:`None` if there is nothing to be done then.
            usual_seconds:
                Gives after how many seconds the evaluation is suspiciously long, and what
                that is compared with.
            can_be_asked:
                Whether it calls that function at least ten times in the timeout.

        Raises:
            EvaluationTimeout:
                If it took too long.
        """
        one = _Evaluation(what, give_up, usual_seconds, can_be_asked)

        def check() -> None:
            if self._timeout is not None and time.monotonic() - one.started >= self._timeout:
                one.is_late = True
                raise EvaluationTimeout(self.reason)

        try:
            try:
                self._begin(one)
                result = evaluate(check)
            finally:
                self._end(one)
        except _Expired:
            self._end(one)
            if one.is_interrupted:
                raise KeyboardInterrupt from None
            raise EvaluationTimeout(self.reason) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if one.is_interrupted:
                raise KeyboardInterrupt from error
            if one.is_late and not isinstance(error, EvaluationTimeout):
                # What was made of being interrupted.
                raise EvaluationTimeout(self.reason) from error
            raise
        if one.is_interrupted:
            raise KeyboardInterrupt
        if one.is_late:  # A function that handles all exceptions has gone on, with what result?
            raise EvaluationTimeout(self.reason)
        return result

    def interrupt(self) -> None:
        """End the evaluations of all other threads, as Ctrl-C ends that of the main thread.

        Until :meth:`resume`, also those that begin later, and again those that go on: what is
        raised in a thread may come at a moment at which it is lost.
        """
        with self._lock:
            self._spared = threading.get_ident()
            for one in self._active:
                self._interrupt_thread(one)

    def resume(self) -> None:
        """Let evaluations run again."""
        self._spared = None

    def _interrupt_thread(self, one: _Evaluation) -> None:
        if one.is_active and self._spared not in (None, one.thread):
            one.is_interrupted = True
            _raise_in_thread(one.thread, _Expired)

    def _begin(self, one: _Evaluation) -> None:
        if self._process != os.getpid():  # A child has none of its parent's threads.
            self._process, self._lock = os.getpid(), threading.Lock()
            self._active, self._thread = set(), None
        if self._timeout is not None:
            one.signal = self._take_signal(one)
        with self._lock:
            self._active.add(one)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="optuna_quant evaluations", daemon=True
                )
                self._thread.start()

    def _end(self, one: _Evaluation) -> None:
        while True:
            try:
                with self._lock:
                    one.is_active = False
                    self._active.discard(one)
                # From here on nothing is sent. What was sent and did not arrive is taken back.
                if one.signal is not None:
                    signal.sigpending()  # A system call: at its end, a signal has arrived.
                    signal.signal(one.signal, signal.SIG_DFL)
                    one.signal = None
                elif one.is_late or one.is_interrupted:
                    _raise_in_thread(one.thread, None)
                return
            except _Expired:
                continue

    @staticmethod
    def _take_signal(one: _Evaluation) -> int | None:
        """A signal that can end the evaluation: in the main thread, and of no other use."""
        if threading.current_thread() is not threading.main_thread():
            return None

        def expire(number: int, frame: object) -> None:
            if one.is_active and one.is_late:
                raise _Expired

        for number in _free_signals():
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, expire)
                return number
        return None

    # In the other thread.

    @property
    def _interval(self) -> float:
        if self._spared is not None:
            return _SHORTEST_BETWEEN_LOOKS_SECONDS
        if self._timeout is None:
            return _LONGEST_BETWEEN_LOOKS_SECONDS
        seconds = max(self._timeout / _LOOKS_PER_TIMEOUT, _SHORTEST_BETWEEN_LOOKS_SECONDS)
        return min(seconds, _LONGEST_BETWEEN_LOOKS_SECONDS)

    def _watch(self) -> None:
        while True:
            time.sleep(self._interval)
            with self._lock:
                active = list(self._active)
                if not active:
                    self._thread = None
                    return
            for one in active:
                try:
                    self._look(one)
                except Exception as error:  # The storage may be back at the next look.
                    _logger.debug(f"{one.what} could not be monitored: {error!r}")

    def _look(self, one: _Evaluation) -> None:
        seconds = time.monotonic() - one.started
        if self._spared is not None:
            with self._lock:
                self._interrupt_thread(one)
        if one.is_given_up:
            return
        if self._timeout is None:
            self._tell_of_long(one, seconds)
            return
        grace = _GRACE_PART * self._timeout
        grace = min(max(grace, _SHORTEST_GRACE_SECONDS), _LONGEST_GRACE_SECONDS)
        interrupt_at = self._timeout + (grace if one.can_be_asked else 0.0)
        if seconds >= interrupt_at + grace:
            self._give_up(one, seconds)
        elif seconds >= interrupt_at:
            # Again at each look: it may have been handled.
            with self._lock:
                if one.is_active:
                    one.is_late = True
                    self._interrupt(one)

    @staticmethod
    def _interrupt(one: _Evaluation) -> None:
        if one.signal is not None:
            signal.pthread_kill(one.thread, one.signal)
        else:
            _raise_in_thread(one.thread, _Expired)

    def _give_up(self, one: _Evaluation, seconds: float) -> None:
        if one.give_up is not None:
            one.give_up(self.reason)
        one.is_given_up = True
        marked = "it counts as failed, so other workers continue; "
        text = (
            f"{one.what} took longer than evaluation_timeout={self._timeout:g} s and did not "
            "stop when it was interrupted: it is in a call that does not return. After "
            f"{seconds:.0f} s {'' if one.give_up is None else marked}this process cannot "
            "continue until the call returns."
        )
        _logger.warning(text)
        if self._on_stuck is not None:
            self._on_stuck(text)

    def _tell_of_long(self, one: _Evaluation, seconds: float) -> None:
        if seconds < one.told_at:
            return
        limit, compared = one.usual_seconds()
        if seconds < limit:
            one.told_at = limit
            return
        one.told_at = math.inf
        _logger.warning(long_evaluation(one.what, seconds, compared))


def _free_signals() -> list[int]:
    """Signals that programs rarely use, best first; none where they cannot be sent to a thread."""
    if not hasattr(signal, "pthread_kill"):
        return []
    free = [signal.SIGALRM, signal.SIGUSR2]
    return [signal.SIGRTMAX - 5, *free] if hasattr(signal, "SIGRTMAX") else list(free)


def _raise_in_thread(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in a thread when it next runs Python code; :obj:`None` takes it back."""
    import ctypes

    value = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
