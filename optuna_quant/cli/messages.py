"""What the command says on stderr, and what it does when it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
import re
import signal
import sys
import threading
from types import FrameType
from typing import Any

from optuna_quant._common.printable import printable


_PACKAGE = __name__.partition(".")[0]

_IN_PYTHON = re.compile(
    r"\b[a-z_]+=(?:\{[^}]*\}|\[[^]]*\]|[\w.\'\"]*) "
    r"(?:\((?P<one>--[^)]+)\)|or (?P<other>--[a-z-]+ \w+(?:,\w+)*))"
)
"""What messages of the library advise in Python, with the flag of the command behind it."""


def with_flags(text: str) -> str:
    """A message with what it advises as flags only, where it has both."""
    return _IN_PYTHON.sub(lambda found: found["one"] or found["other"], text)


def is_said_here(error: BaseException) -> bool:
    """Whether an error is of this package, and says all that there is: the place tells no more.

    That of somebody else's code, and one that such an error has caused, does not.

    Args:
        error:
            The error, with the traceback that it was caught with.
    """
    cause = error.__cause__
    if cause is not None and not is_said_here(cause):
        return False
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__package__", "").startswith(
        _PACKAGE
    )


def say(text: str) -> None:
    """Write a line to stderr."""
    write_line(f"optuna-quant: {printable(with_flags(text))}")


def write_line(text: str) -> None:
    """Write a line to stderr; on a terminal with what kind of message it is in colour."""
    if not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    shown = Text(text)
    shown.highlight_regex(r"^[^:]*(: rank \d+)?: error:", "bold red")
    shown.highlight_regex(r"^[^:]*(: rank \d+)?: warning:", "bold yellow")
    Console(file=sys.stderr, soft_wrap=True, highlight=False).print(shown)


def write_result(text: str, *, good: bool) -> None:
    """Write a result to stdout; on a terminal with its first line in colour."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.text import Text

    shown = Text(text)
    shown.stylize("bold green" if good else "bold yellow", 0, len(text.partition("\n")[0]))
    Console(file=sys.stdout, highlight=False).print(shown)


@contextlib.contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Note every Ctrl-C: compiled modules that are just imported raise ImportError for it.

    SIGTERM is taken for one: it is what launchers and clusters send first, and the trial that is
    cut short can be given back at once. So is SIGHUP, when the terminal is closed.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    if hasattr(signal, "SIGHUP"):  # With nohup it is ignored, and stays so.
        usual[signal.SIGHUP] = signal.SIG_DFL
    in_main = threading.current_thread() is threading.main_thread()
    taken = [number for number in usual if in_main and signal.getsignal(number) is usual[number]]
    for number in taken:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number in taken:
            signal.signal(number, usual[number])


class _Lines(logging.Formatter):
    """Each message in one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(with_flags(super().formatMessage(record)))


class _ToStderr(logging.Handler):
    """Writes to stderr as it is at the moment: a live view puts another one in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        write_line(self.format(record))


@contextlib.contextmanager
def messages(speaker: str, *, verbose: bool, quiet: bool) -> Iterator[None]:
    """Write what the libraries have to say to stderr, in lines of our own."""
    import warnings

    import optuna

    def show(message: Warning | str, *_: object, **__: object) -> None:
        write_line(f"{speaker}: warning: {printable(with_flags(str(message)))}")

    handler = _ToStderr()
    handler.setFormatter(_Lines(f"{speaker}: %(message)s"))
    if not verbose and not quiet:
        # The progress line of a failed trial says the same.
        handler.addFilter(lambda entry: not getattr(entry, "in_progress_line", False))
    logger = logging.getLogger("optuna_quant")
    level, verbosity = logger.level, optuna.logging.get_verbosity()
    logger.addHandler(handler)
    # Otherwise Optuna's handler would write each message once more.
    parent, logger.parent = logger.parent, logging.getLogger()
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            if not verbose:
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.parent = parent
        logger.setLevel(level)
        optuna.logging.set_verbosity(verbosity)
