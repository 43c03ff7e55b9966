"""The criterion that a study records: what tools read that have nothing but its storage."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.study import StudyDirection

from optuna_quant._optuna import study_user_attrs
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.study import record


if TYPE_CHECKING:
    import optuna


_logger = get_logger(__name__)


def keep_criterion(study: optuna.Study, criterion: AccuracyCriterion) -> None:
    """Record the criterion of a study, unless it records one.

    Args:
        study:
            The study.
        criterion:
            When a metric is good enough.
    """
    if study_user_attrs(study).get(record.CRITERION) is None:
        study.set_user_attr(record.CRITERION, asdict(criterion))


def warn_of_other_criterion(study: optuna.Study, criterion: AccuracyCriterion) -> None:
    """Say that a study is continued with another criterion than it was started with.

    Args:
        study:
            The study.
        criterion:
            When a metric is good enough from now on.
    """
    _logger.warning(
        f"The study {study.study_name!r} was started with another criterion "
        f"({recorded_criterion(study)}; now: {criterion}). Its trials are judged by the new one "
        "here, but study.best_trial still goes by the old one for trials that have ended; "
        "best_met_trial(study, criterion) goes by the one that it is given."
    )


def is_other_criterion(study: optuna.Study, criterion: AccuracyCriterion) -> bool:
    """Whether a study was started with another criterion.

    Args:
        study:
            The study.
        criterion:
            When a metric is good enough.
    """
    return recorded_criterion(study) not in (None, criterion)


def recorded_criterion(study: optuna.Study) -> AccuracyCriterion | None:
    """The criterion that a study was started with; :obj:`None` if it records none."""
    stored = study_user_attrs(study).get(record.CRITERION)
    return None if stored is None else AccuracyCriterion(**stored)


def criterion_or_default(study: optuna.Study) -> AccuracyCriterion:
    """The criterion of a study; if it records none, 1% relative loss in its first direction."""
    higher = study.directions[0] != StudyDirection.MINIMIZE
    return recorded_criterion(study) or AccuracyCriterion(higher_is_better=higher)
