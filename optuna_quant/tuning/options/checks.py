"""Checks of single options."""

from __future__ import annotations

from numbers import Real

from optuna_quant._common import counts
from optuna_quant._common import durations


def check_count(name: str, value: object) -> None:
    """Refuse what is no number of things to have at least one of; :obj:`None` is accepted.

    Raises:
        TypeError:
            If it is no integer.
        ValueError:
            If it is less than one.
    """
    if value is not None:
        counts.check_count(name, value)


def check_instance(name: str, value: object) -> None:
    """Refuse a class where an object of it is meant.

    Raises:
        TypeError:
            If it is a class.
    """
    if isinstance(value, type):
        raise TypeError(
            f"{name} must be an instance, but got the class {value.__name__}: give "
            f"{value.__name__}(...)."
        )


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither :obj:`True` nor :obj:`False`.

    Raises:
        TypeError:
            If it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but got {value!r}.")


def check_seconds(
    name: str, value: float | str | None, *, above_zero: bool = False
) -> float | None:
    """Refuse what is no length of time; :obj:`None`, no limit, is accepted.

    Args:
        name:
            The name of the option.
        value:
            A number of seconds, or a duration such as ``"15m"``.
        above_zero:
            Whether 0 is refused.

    Returns:
        The seconds.

    Raises:
        TypeError:
            If it is neither a number nor a text.
        ValueError:
            If it is a text and no duration, negative, not finite, or 0 where that is refused.
    """
    seconds = durations.as_seconds(name, value)
    durations.check_seconds(name, seconds, above_zero=above_zero)
    return seconds


def check_probability(name: str, value: object) -> None:
    """Refuse what is no probability between 0 and 1.

    Raises:
        TypeError:
            If it is no number.
        ValueError:
            If it is out of its range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but got {value!r}.")
    if not 0 < float(value) < 1:
        raise ValueError(f"{name} must be above 0 and below 1, but got {value}.")
