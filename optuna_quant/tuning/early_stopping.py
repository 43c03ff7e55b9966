"""Choose the early stopping of a search."""

from __future__ import annotations

import logging

from optuna.logging import get_logger

from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.sequential import EarlyStopping
from optuna_quant.sequential.methods import METHODS
from optuna_quant.sequential.population import is_bounded
from optuna_quant.workers.launch import this_rank


_logger = get_logger(__name__)


def make_stopping(
    measure: Evaluate, *, early_stopping: str | None, error_probability: float
) -> EarlyStopping | None:
    """When enough samples were seen; :obj:`None` if all are, as there is nothing to go by."""
    if early_stopping not in (None, "off", *METHODS):
        raise ValueError(
            f"early_stopping must be one of {', '.join(METHODS)} or off, but got "
            f"{early_stopping!r}."
        )
    method = "paired" if early_stopping in (None, "off") else early_stopping
    stopping = EarlyStopping(method=method, error_probability=error_probability)
    in_full = isinstance(measure, FunctionEvaluation) and not measure.in_parts
    if in_full and early_stopping not in (None, "off"):
        raise ValueError(
            f"early_stopping={early_stopping!r} needs data and a metric of single samples, or a "
            "function evaluate(session, indices) that gives the scores of those that it is "
            "asked for; evaluate has no parameter named indices."
        )
    if early_stopping == "off":
        return None
    if not isinstance(measure, DataEvaluation):  # The first call tells what there is to go by.
        return stopping
    if measure.bounds is not None and not is_bounded(measure.bounds):
        if this_rank().is_leader:
            level = logging.WARNING if early_stopping in ("paired", "unpaired") else logging.INFO
            _logger.log(
                level,
                "A configuration is given up only once it certainly fails, as with "
                f"early_stopping='exact', because the metric {measure.name!r} has no bound on "
                "how bad the score of a sample can be. If you know one, give "
                "metric_bounds=(lowest, highest) to decide sooner.",
            )
        return stopping
    if measure.bounds is None:
        why = (
            "has no bounds: give metric_bounds=(lowest, highest), the range of a sample's score"
            if measure.is_mean
            else "is not a mean over samples"
        )
        if this_rank().is_leader:
            _logger.warning(
                f"Every configuration is evaluated on all samples, because the metric "
                f"{measure.name!r} {why}."
            )
        return None
    return stopping
