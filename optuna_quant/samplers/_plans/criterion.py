"""What is said to users of plans that need a criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion


def require_criterion(sampler: object, criterion: AccuracyCriterion | None) -> None:
    """Refuse to search for what the criterion allows without one."""
    if criterion is None:
        raise TypeError(
            f"{type(sampler).__name__} needs criterion=, an AccuracyCriterion: the search is "
            "for what it allows."
        )
