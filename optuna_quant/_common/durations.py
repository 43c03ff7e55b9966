"""Times that people write: ``90s``, ``15m``, ``1h``, ``2d``, ``1h30m``, or a number of seconds."""

from __future__ import annotations

import math
from numbers import Real
import re


EXAMPLES = "90s, 15m, 1h30m or 2d"

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|min|m|h|d)", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """The seconds of a text: a number of them, or numbers with units.

    Args:
        text:
            The text.

    Raises:
        ValueError:
            If it is no such text.
    """
    try:
        return float(text)
    except ValueError:
        pass
    total, end = 0.0, 0
    while end < len(text.rstrip()):
        found = _PART.match(text, end)
        if found is None:
            raise ValueError(f"{text!r} is no duration")
        total += float(found[1]) * _SECONDS[found[2].lower()]
        end = found.end()
    if not end:
        raise ValueError(f"{text!r} is no duration")
    return total


def as_seconds(name: str, value: float | str | None) -> float | None:
    """The seconds of a value as users give it; what is no text is not looked at.

    Args:
        name:
            The name of the value, for the message.
        value:
            A number of seconds, a text, or :obj:`None`.

    Raises:
        ValueError:
            If it is a text and no duration.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(
            f"{name} must be a number of seconds or a duration such as {EXAMPLES}, but got "
            f"{value!r}."
        ) from None


def check_seconds(name: str, value: object, *, above_zero: bool = False) -> None:
    """Refuse what is no length of time; :obj:`None`, no limit, is accepted.

    Args:
        name:
            The name of the value, for the message.
        value:
            A number of seconds, or :obj:`None`.
        above_zero:
            Whether 0 is refused.

    Raises:
        TypeError:
            If it is no number.
        ValueError:
            If it is negative, not finite, or 0 where that is refused.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number of seconds, but got {value!r}.")
    seconds = float(value)
    if not 0 <= seconds < math.inf or (above_zero and not seconds):
        least = "above 0" if above_zero else "of at least 0"
        raise ValueError(
            f"{name} must be a number of seconds {least}, but got {value}; use None for no limit."
        )
