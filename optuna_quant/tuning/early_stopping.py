"""Which early stopping the evaluation of a search gets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.pruners import NopPruner

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.objective import Evaluate
from optuna_quant.pruners import METHODS
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.sequential.population import is_bounded
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna.pruners import BasePruner


_logger = get_logger(__name__)


def make_pruner(
    measure: Evaluate,
    criterion: AccuracyCriterion,
    *,
    evidence: str | None,
    error_probability: float,
) -> BasePruner:
    """What decides when enough samples were seen; nothing does if there is nothing to go by."""
    if evidence not in (None, "off", *METHODS):
        raise ValueError(
            f"evidence must be one of {', '.join(METHODS)} or off, but got {evidence!r}."
        )
    pruner = AccuracyPruner(
        criterion, error_probability=error_probability, method=_method(evidence)
    )
    in_full = isinstance(measure, FunctionEvaluation) and not measure.in_parts
    if in_full and evidence not in (None, "off"):
        raise ValueError(
            f"evidence={evidence!r} needs data and a metric of single samples, or a function "
            "evaluate(session, indices) that gives the scores of those that it is asked for; "
            "evaluate has no parameter named indices."
        )
    if evidence == "off":
        return NopPruner()
    if not isinstance(measure, DataEvaluation):  # The first call tells what there is to go by.
        return pruner
    if measure.bounds is not None and not is_bounded(measure.bounds):
        if this_rank().reports:
            level = logging.WARNING if evidence in ("paired", "unpaired") else logging.INFO
            _logger.log(
                level,
                f"A configuration is given up once it certainly fails, as with evidence='exact', "
                f"because the metric {measure.name!r} has no bound on how bad the score of a "
                "sample can be. If you know one, metric_bounds=(lowest, highest) decides sooner.",
            )
        return pruner
    if measure.bounds is None:
        why = (
            "has no bounds: give metric_bounds=(lowest, highest), between which the score of each "
            "sample is"
            if measure.is_mean
            else "is no mean over samples"
        )
        if this_rank().reports:
            _logger.warning(
                f"Every configuration is evaluated on all samples, because the metric "
                f"{measure.name!r} {why}."
            )
        return NopPruner()
    return pruner


def _method(evidence: str | None) -> str:
    return evidence if evidence in METHODS else "paired"
