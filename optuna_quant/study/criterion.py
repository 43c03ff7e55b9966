"""The criterion that a study records: what tools read that have nothing but its storage."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from optuna.study import StudyDirection

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.study import record


if TYPE_CHECKING:
    import optuna


def keep_criterion(study: optuna.Study, criterion: AccuracyCriterion) -> None:
    """Record the criterion of a study, unless it records one.

    Args:
        study:
            The study.
        criterion:
            When a metric is good enough.
    """
    if study.user_attrs.get(record.CRITERION) is None:
        study.set_user_attr(record.CRITERION, asdict(criterion))


def recorded_criterion(study: optuna.Study) -> AccuracyCriterion | None:
    """The criterion that a study was started with; :obj:`None` if it records none."""
    stored = study.user_attrs.get(record.CRITERION)
    return None if stored is None else AccuracyCriterion(**stored)


def criterion_or_default(study: optuna.Study) -> AccuracyCriterion:
    """The criterion of a study; if it records none, 1% relative loss in its first direction."""
    higher = study.directions[0] != StudyDirection.MINIMIZE
    return recorded_criterion(study) or AccuracyCriterion(higher_is_better=higher)
