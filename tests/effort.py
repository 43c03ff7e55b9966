"""How much tests try."""

from __future__ import annotations

from hypothesis import settings


def examples(thorough: int) -> int:
    """How many examples the chosen profile tries, where the one called thorough tries so many."""
    share = settings.default.max_examples / settings.get_profile("thorough").max_examples
    return max(5, round(thorough * share))
