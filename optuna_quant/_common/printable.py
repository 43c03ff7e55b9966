"""Text that comes from models and files, made fit for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
import math


def printable(text: str) -> str:
    """A text in one line in which what cannot be printed is escaped, as Python does.

    Names of ops may hold anything: ends of lines, which would look like lines of ours, sequences
    that a terminal takes for orders, signs that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def percent(part: float, *, digits: int = 3) -> str:
    """A part in percent, without the sign: to some digits, and never as a power of ten.

    Args:
        part:
            The part, such as 0.01.
        digits:
            How many digits it has; all those before the point are shown.
    """
    value = 100 * part
    return f"{value:.0f}" if 10 ** (digits - 1) <= abs(value) < math.inf else f"{value:.{digits}g}"
