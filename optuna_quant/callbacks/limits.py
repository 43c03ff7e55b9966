"""Check the limits of a search."""

from __future__ import annotations

import math
from numbers import Integral
from numbers import Real
from typing import Any


def check_limits(
    timeout: float | None, max_trials: int | None, stop_at_first: bool | None
) -> None:
    """Refuse limits that make no sense.

    Args:
        timeout:
            Seconds, at least 0; :obj:`None` for no limit.
        max_trials:
            A number of trials, at least 1; :obj:`None` for no limit.
        stop_at_first:
            Whether to stop at the first success; :obj:`None` for the default.

    Raises:
        TypeError:
            If a limit has another type.
        ValueError:
            If a limit is out of its range, or the limits contradict each other.
    """
    if timeout is not None:
        seconds = _number("timeout", timeout)
        if not 0 <= seconds < math.inf:
            raise ValueError(
                f"timeout must be a number of seconds of at least 0, but got {timeout}; use None "
                "for no limit."
            )
    if max_trials is not None:
        if isinstance(max_trials, bool) or not isinstance(max_trials, Integral):
            raise TypeError(f"max_trials must be an integer or None, but got {max_trials!r}.")
        if max_trials < 1:
            raise ValueError(f"max_trials must be at least 1, but got {max_trials}.")
    if timeout == 0 and stop_at_first is False:
        raise ValueError(
            "timeout=0 stops at the first configuration that meets the criterion, which "
            "contradicts stop_at_first=False; use timeout=None to continue without a time "
            "limit."
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but got {value!r}.")
    return float(value)
