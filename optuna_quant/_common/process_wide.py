"""Changes to the whole process that several threads may need at once, and that leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextlib import contextmanager
import io
import logging
import sys
from threading import Lock
from threading import get_ident
from types import TracebackType
from typing import Any
from typing import NamedTuple
import warnings


_NOTHING = logging.CRITICAL + 1


class SharedChange:
    """A change that is made when the first thread enters, and undone when the last one leaves.

    A context manager of the process that each thread enters for itself, such as
    :class:`warnings.catch_warnings`, restores what it found: if another thread has entered in
    between, the changes of that one are undone too early, or stay for good.

    Args:
        change:
            Gives what makes the change and undoes it.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        self._change = change
        self._lock = Lock()
        self._inside = 0
        self._made: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                made = self._change()
                made.__enter__()
                self._made = made
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._made is not None:
                made, self._made = self._made, None
                made.__exit__(None, None, None)


class Ignored(NamedTuple):
    """Warnings that are not shown.

    Args:
        category:
            Their class.
        message:
            A regular expression that they start with.
        module:
            A regular expression of the module that warns.
    """

    category: type[Warning]
    message: str = ""
    module: str = ""


@contextmanager
def ignoring(warned: Sequence[Ignored]) -> Iterator[None]:
    """Without some warnings; filters that others set meanwhile stay as they are.

    Args:
        warned:
            The warnings.
    """
    added: list[tuple[list[Any], Any]] = []
    for each in warned:
        filters: list[Any] = warnings.filters  # type: ignore[assignment]
        before = list(filters)
        warnings.filterwarnings("ignore", each.message, each.category, each.module)
        if filters[0] not in before:
            added.append((filters, filters[0]))
    try:
        yield
    finally:
        for filters, entry in added:
            # Where another thread is inside catch_warnings, the list is a copy.
            now: list[Any] = warnings.filters  # type: ignore[assignment]
            for place in (filters, now):
                if entry in place:
                    place.remove(entry)


@contextmanager
def only_errors(loggers: Sequence[str], *, silent: Sequence[str] = ()) -> Iterator[None]:
    """Loggers that say nothing less than errors.

    Args:
        loggers:
            Their names.
        silent:
            The names of loggers that say nothing at all: those of errors that are raised as well.
    """
    wanted = {**dict.fromkeys(loggers, logging.ERROR), **dict.fromkeys(silent, _NOTHING)}
    found = {logging.getLogger(name): level for name, level in wanted.items()}
    levels = {logger: logger.level for logger in found}
    for logger, level in found.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


class _StreamOfThreads:
    """A stream that some threads write elsewhere.

    Args:
        stream:
            Where the other threads write.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.elsewhere: dict[int, Any] = {}

    def write(self, text: str) -> int:
        """Write a text where it belongs."""
        return int(self.elsewhere.get(get_ident(), self.stream).write(text) or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _stderr_of_threads() -> Iterator[None]:
    found = _StreamOfThreads(sys.stderr)
    sys.stderr = found
    try:
        yield
    finally:
        if sys.stderr is found:
            sys.stderr = found.stream


_STDERR = SharedChange(_stderr_of_threads)


@contextmanager
def stderr_if_done() -> Iterator[None]:
    """What this thread prints to the standard error is shown at the end, and not if it fails."""
    with _STDERR:
        stream = sys.stderr
        if not isinstance(stream, _StreamOfThreads):  # Somebody has replaced it since.
            yield
            return
        thread, printed = get_ident(), io.StringIO()
        outer = stream.elsewhere.get(thread)
        stream.elsewhere[thread] = printed
        try:
            yield
        except BaseException:
            printed.truncate(0)
            printed.seek(0)
            raise
        finally:
            if outer is None:
                del stream.elsewhere[thread]
            else:
                stream.elsewhere[thread] = outer
            stream.write(printed.getvalue())
