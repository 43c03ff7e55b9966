"""Call a user's functions so that they cannot end the process or the search."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import sysconfig
import traceback


_NOT_THE_USERS = (
    str(Path(__file__).parent.parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


class ExitedError(ValueError):
    """Code that was given to a search has tried to end the process, as by ``sys.exit``."""


@contextlib.contextmanager
def exits_are_errors(what: str) -> Iterator[None]:
    """Turn an exception that would end the process into an error.

    ``sys.exit(0)`` in the middle of a search is no success. Python's ``Exception`` does not cover
    it, so that code which handles errors would let it pass: the process would end with the exit
    code 0, without a word, and leave its trial running.

    Args:
        what:
            What runs in the block, for the message.

    Raises:
        ExitedError:
            If the block raises anything but an :class:`Exception` or :class:`KeyboardInterrupt`.
            A child process that the block has forked may exit as it likes.
    """
    process = os.getpid()
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        if os.getpid() != process:
            raise
        raise ExitedError(f"{what} tried to end the process ({shown(error)}).") from error


def place(error: BaseException) -> str:
    """Where in code that is not this package's an error was raised, in words; empty if nowhere.

    Of the user's own file if there is one on the way, not of a library that it has called.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        each
        for each in frames
        if Path(each.filename).is_file() and not each.filename.startswith(_NOT_THE_USERS)
    ]
    return f" (line {own[-1].lineno} of {Path(own[-1].filename).name})" if own else ""


def shown(error: BaseException) -> str:
    """An exception on one line, as people know it, with its notes."""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r})"
    notes = getattr(error, "__notes__", ())
    text = str(error)
    if notes:
        text = " ".join([f"{text.rstrip().rstrip('.')}.", *notes])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
