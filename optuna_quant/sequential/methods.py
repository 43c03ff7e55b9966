"""The methods of sequential testing, and the check of their error probability."""

from __future__ import annotations

from numbers import Real


METHODS = ("paired", "unpaired", "exact")
"""Bet on the candidate's scores and on their differences to the baseline's; on the candidate's
alone; or give up only what certainly fails."""


def check_method(method: str) -> None:
    """Refuse a method that there is not.

    Raises:
        ValueError:
            If it is not one of :data:`METHODS`.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but got {method!r}.")


def check_error_probability(probability: float) -> None:
    """Refuse what is no probability of error.

    Raises:
        TypeError:
            If it is not a number.
        ValueError:
            If it is not above 0 and below 1.
    """
    if isinstance(probability, bool) or not isinstance(probability, Real):
        raise TypeError(f"error_probability must be a number, but got {probability!r}.")
    if not 0 < probability < 1:
        raise ValueError(
            f"error_probability must be above 0 and below 1, but got {probability}; "
            "use method='exact' to never err."
        )
