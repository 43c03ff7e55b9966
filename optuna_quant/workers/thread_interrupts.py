"""Pass Ctrl-C on to threads: Python raises ``KeyboardInterrupt`` in the main thread only."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import signal
import threading
from types import FrameType


_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextlib.contextmanager
def passed_on(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call a function besides, when a signal comes that is handled in Python.

    The main thread waits for the threads in which trials run. Without this it would do so until
    the last of their evaluations has come to its end.

    Args:
        interrupt:
            Is called in the main thread, before the signal's own handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]:
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, signal.Handlers):
            before[number] = handler

    def note(number: int, frame: FrameType | None) -> None:
        interrupt()
        before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
