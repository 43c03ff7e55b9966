"""Which of a model's outputs are looked at."""

from __future__ import annotations

from collections.abc import Sequence
import difflib


def as_output_names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """What a user gives as names of outputs; :obj:`None` for the first output.

    Raises:
        TypeError:
            If it is neither a name nor a sequence of names.
        ValueError:
            If there is none, or one twice.
    """
    if names is None:
        return None
    found = (names,) if isinstance(names, str) else names
    if not isinstance(found, Sequence) or not all(isinstance(name, str) for name in found):
        raise TypeError(
            f"output_names must be the name of an output or a list of names, but got {names!r}."
        )
    found = tuple(found)
    if not found:
        raise ValueError(
            "output_names must name at least one output; None stands for the first one."
        )
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise ValueError(f"output_names names {twice[0]!r} twice.")
    return found


def choose_outputs(names: tuple[str, ...] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The outputs that are scored: those that were named, or the first.

    Args:
        names:
            The names; :obj:`None` if none were given.
        known:
            The model's outputs, in its order.

    Raises:
        ValueError:
            If the model has no output of a name.
    """
    if names is None:
        return tuple(known[:1])
    for name in names:
        if name not in known:
            raise ValueError(
                f"output_names: the model has no output {name!r}; {_nearest(name, known)}its "
                f"outputs are: {', '.join(known)}."
            )
    return names


def _nearest(name: str, known: Sequence[str]) -> str:
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[close[0]]!r}? " if close else ""
