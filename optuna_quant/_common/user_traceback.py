"""Tracebacks that start at the user's own lines."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar


_Error = TypeVar("_Error", bound=BaseException)

# What is on the way from the user's call to the user's function.
_PASSED = (__name__.partition(".")[0], "optuna", "contextlib", "concurrent", "threading")


def from_user_lines(error: _Error) -> _Error:
    """An error that is shown from where it is raised, its cause from the user's function on.

    Args:
        error:
            The error; it and its cause are changed.
    """
    cause = error.__cause__
    if cause is not None:
        cause.__traceback__ = _users(cause.__traceback__)
    return error.with_traceback(None)


def _users(traceback: TracebackType | None) -> TracebackType | None:
    """The part from the first line outside of this package on; all of it if there is none."""
    frame = traceback
    while frame is not None:
        module = str(frame.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _PASSED:
            return frame
        frame = frame.tb_next
    return traceback
