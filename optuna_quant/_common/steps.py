"""Steps that may take long say what is done, for whatever shows it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from threading import Timer

from optuna.logging import get_logger


_logger = get_logger(__name__)

TOLD_AFTER_SECONDS = 3.0
"""How long a step takes that a log is to have a line of."""


@dataclass(frozen=True, eq=False)
class _Step:
    what: str
    hides: bool


class LateTeller:
    """Tells of steps that take long, of each once.

    Args:
        tell:
            Is given a line of text, in another thread.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()
        self._timer: Timer | None = None

    def __call__(self, what: str) -> None:
        """A step has started, and the one before it is over.

        Args:
            what:
                What is done; empty for nothing.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if what and what not in self._told:
            self._timer = Timer(TOLD_AFTER_SECONDS, self._tell_now, [what])
            self._timer.daemon = True
            self._timer.start()

    def _tell_now(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(f"{what} ...")


class Steps:
    """The steps that last, and who is told of them.

    Args:
        log:
            Is told where there is no listener.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._lock = Lock()
        self._lasting: list[_Step] = []
        self._listeners: list[Callable[[str], None]] = []

    @contextmanager
    def doing(self, what: str, *, hides: bool = False) -> Iterator[None]:
        """See :func:`doing`."""
        step = _Step(what, hides)
        try:
            with self._lock:
                self._lasting.append(step)
                self._say()
            yield
        finally:
            with self._lock:
                self._lasting = [each for each in self._lasting if each is not step]
                self._say()

    @contextmanager
    def listening(self, listener: Callable[[str], None]) -> Iterator[None]:
        """See :func:`listening`."""
        with self._lock:
            self._log("")
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)
                listener("")

    def _say(self) -> None:
        listener = self._listeners[-1] if self._listeners else self._log
        hiding = [step for step in self._lasting if step.hides]
        shown = (hiding or self._lasting)[-1:]
        listener(shown[0].what if shown else "")


_steps = Steps(LateTeller(_logger.info))
"""Those of this process. There is one, as with logging: what takes long does not know who shows
it, and is not given it through all that calls it."""


def doing(what: str, *, hides: bool = False) -> AbstractContextManager[None]:
    """Say what is done in a block.

    Args:
        what:
            What is done, such as "Compiling the model"; no full stop.
        hides:
            Whether steps within it are not told of.
    """
    return _steps.doing(what, hides=hides)


def listening(listener: Callable[[str], None]) -> AbstractContextManager[None]:
    """Have somebody else told of steps than the log, while it lasts.

    Args:
        listener:
            Is given what is done, each time that this changes: the step that began last, or an
            empty text.
    """
    return _steps.listening(listener)
