"""What a user may have meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
import difflib


_SIMILAR = 0.6
_SHORTEST_START = 3


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name that is most like a word; :obj:`None` if none is much like it.

    Upper and lower case count little, so that ``conv`` finds ``Conv``.

    Args:
        word:
            What was given.
        known:
            The names that exist.
    """
    return next(iter(nearest_names(word, known, most=1)), None)


def nearest_names(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The few names that are most like a word, the nearest first; empty if none is much like it.

    A name that begins with the word, as ``accuracy`` with ``acc``, comes before others.

    Args:
        word:
            What was given.
        known:
            The names that exist.
        most:
            How many at most.
    """
    names = {name.lower(): name for name in reversed(list(known))}
    given = word.lower()
    started = [name for name in names if name.startswith(given)]
    found = sorted(started, key=len) if len(given) >= _SHORTEST_START else []
    found += difflib.get_close_matches(given, names, n=most + len(found), cutoff=_SIMILAR)
    return [names[each] for each in dict.fromkeys(found)][:most]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to be appended to a message, with a space before it; empty if there is none.

    Args:
        word:
            What was given.
        known:
            The names that exist.
    """
    found = nearest(word, known)
    return "" if found is None else f" Did you mean {found!r}?"


def did_you_mean_inside(word: str, known: Iterable[str]) -> str:
    """As :func:`did_you_mean`, in brackets, for the middle of a sentence."""
    found = nearest(word, known)
    return "" if found is None else f" (did you mean {found!r}?)"
