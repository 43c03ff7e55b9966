"""Checks of numbers of things."""

from __future__ import annotations

from numbers import Integral


def check_count(name: str, value: object) -> None:
    """Refuse what is no number of things to have at least one of.

    Raises:
        TypeError:
            If it is no integer.
        ValueError:
            If it is less than one.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, but got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, but got {value}.")


def check_positive(name: str, value: object) -> None:
    """As :func:`check_count`, where every bad value is one error.

    Raises:
        ValueError:
            If it is no positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, but got {value!r}.")
