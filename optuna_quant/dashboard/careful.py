"""Do what must not end a search."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.logging import get_logger


_Result = TypeVar("_Result")

_logger = get_logger(__name__)


def carefully(what: str, do: Callable[[], _Result]) -> _Result | None:
    """Do something that must not end a search; what goes wrong is a warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return do()
    except Exception as error:
        _logger.warning(f"{what} was not published to the dashboard: {error}")
        return None
