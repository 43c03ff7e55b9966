"""Warn at the user's line."""

from __future__ import annotations

import inspect
import warnings


# What may be called between the user's line and ours: Optuna runs the objective, and a context
# manager that decorates a function, or a value that is computed once, is in a module of its own.
_PASSED = (__name__.partition(".")[0], "optuna", "contextlib", "functools")


def warn_user(message: str) -> None:
    """Warn at the line, outside this package, that led here.

    Args:
        message:
            The warning.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and _package(frame.f_globals.get("__name__", "")) in _PASSED:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _package(module: str) -> str:
    return module.partition(".")[0]
