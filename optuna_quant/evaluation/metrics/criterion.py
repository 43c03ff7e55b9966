"""Derive the criterion from a metric: direction and kind, with a check that it makes sense."""

from __future__ import annotations

from dataclasses import replace

from optuna.logging import get_logger

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.metrics.reference import relative_error
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.evaluation.metrics.score_bounds import Bounds
from optuna_quant.workers.launch import this_rank


_logger = get_logger(__name__)

_SUSPICIOUS = 0.5
"""A relative loss from which on it is asked whether it was meant as a percentage."""


def default_criterion(metric: SampleMetric | CorpusMetric | None) -> str:
    """The kind of criterion that a metric has if none is asked for.

    ``"absolute"`` for an error against the FP32 model's own outputs: the FP32 model has none, and
    a loss relative to 0 is not defined.

    Args:
        metric:
            The metric; :obj:`None` if it is not known.
    """
    return "absolute" if _is_zero_for_fp32(metric) else "relative"


def criterion_for(
    metric: SampleMetric | CorpusMetric | None, given: AccuracyCriterion | None
) -> AccuracyCriterion:
    """The criterion of a search, with the direction of its metric.

    Args:
        metric:
            The metric; :obj:`None` if it is a function of the user's that gives one number.
        given:
            The criterion that the user gives; :obj:`None` for the default.

    Raises:
        ValueError:
            If the criterion and the metric contradict each other, or it cannot be judged by the
            criterion.
    """
    if metric is None:
        return AccuracyCriterion() if given is None else given
    given = AccuracyCriterion() if given is None else given
    said = replace(
        given,
        criterion=given.criterion if given.says_kind else default_criterion(metric),
        higher_is_better=given.higher_is_better
        if given.says_direction
        else metric.higher_is_better,
    )
    return _checked(said, metric)


def _checked(given: AccuracyCriterion, metric: SampleMetric | CorpusMetric) -> AccuracyCriterion:
    if metric.higher_is_better != given.higher_is_better:
        better = "higher" if metric.higher_is_better else "lower"
        raise ValueError(
            f"For the metric {metric.name!r} {better} is better: use "
            f"AccuracyCriterion(higher_is_better={metric.higher_is_better}), or leave "
            "higher_is_better out."
        )
    if given.criterion == "relative" and _is_zero_for_fp32(metric):
        raise ValueError(
            f"The metric {metric.name!r} is 0 for the FP32 model, and a loss relative to 0 is not "
            f"defined: use AccuracyCriterion(criterion='absolute', tolerable_loss="
            f"{given.tolerable_loss:g}) (--criterion absolute), which allows an error of "
            f"{100 * given.tolerable_loss:g}% of the size of the FP32 model's output."
        )
    return given


def check_tolerance(criterion: AccuracyCriterion, *, bounds: Bounds | None = None) -> str:
    """Refuse a tolerance that every model keeps to, and ask about one that is very large.

    Args:
        criterion:
            The criterion.
        bounds:
            The lowest and the highest value of the metric; :obj:`None` if they are not known.

    Returns:
        What is asked, which is logged as well; empty if nothing is.

    Raises:
        ValueError:
            If all of a metric may be lost of which higher is better.
    """
    loss = criterion.tolerable_loss
    if criterion.criterion == "absolute" and bounds is not None and loss >= bounds[1] - bounds[0]:
        said = (
            f"Is this intended? An absolute tolerable loss of {loss:g} covers the whole range of "
            f"the metric, from {bounds[0]:g} to {bounds[1]:g}, so every model meets it."
        )
    elif criterion.criterion != "relative" or loss < _SUSPICIOUS:
        return ""
    else:
        check_is_no_percentage(criterion)
        said = f"Is this intended? {_means(loss)}; {_meant(loss)}."
    if this_rank().is_leader:
        _logger.warning(said)
    return said


def check_is_no_percentage(criterion: AccuracyCriterion) -> None:
    """Refuse a relative tolerance of all of a metric of which higher is better.

    Args:
        criterion:
            The criterion.

    Raises:
        ValueError:
            If it is one.
    """
    loss = criterion.tolerable_loss
    if criterion.criterion == "relative" and loss >= 1 and criterion.higher_is_better:
        raise ValueError(
            f"{_means(loss)} of the FP32 model's metric, which every model meets; {_meant(loss)}."
        )


def _means(loss: float) -> str:
    return f"A relative tolerable loss of {loss:g} means {100 * loss:g}%"


def _meant(loss: float) -> str:
    return f"for {loss:g}% give {loss / 100:g}"


def note_of(measure: object) -> str | None:
    """The remark to show beside the metric of an evaluation; :obj:`None` if there is none."""
    if getattr(measure, "reference", "labels") != "fp32":
        return None
    return (
        f"{getattr(measure, 'name', '')}: compared with the FP32 model's outputs, without labels: "
        "it is not accuracy"
    )


def _is_zero_for_fp32(metric: SampleMetric | CorpusMetric | None) -> bool:
    return metric is not None and metric.score is relative_error
