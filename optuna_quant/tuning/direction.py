"""Warn if a metric seems to have the opposite direction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.library import library_metric_names
from optuna_quant.evaluation.metrics.named import metrics


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.setup import Evaluate
    from optuna_quant.tuning.result import TuningResult


_OF_ERRORS = frozenset(
    {"loss", "nll", "perplexity", "ppl", "error", "errors", "mse", "mae", "rmse", "mape"}
    | {"wer", "cer", "distance", "crossentropy"}
)
"""Words in the names of functions whose values are better the lower they are."""

# Quantization does not make a model so much better, as a part of the FP32 model's metric.
_SUSPICIOUS_GAIN = 0.2


_logger = get_logger(__name__)


def warn_of_direction(function: object, given: AccuracyCriterion | None) -> None:
    """Warn if a function is called like an error, and nothing says that lower is better.

    Args:
        function:
            The user's evaluation or metric; what has no name is passed over.
        given:
            The criterion that the user gives; :obj:`None` for the default.
    """
    if given is not None and (given.says_direction or not given.higher_is_better):
        return
    name = getattr(function, "__name__", "")
    if _OF_ERRORS & set(re.findall(r"[a-z]+", name.lower())):
        warn_user(
            f"Of {name}() higher values are taken to be better, but it is called like an error. "
            "Give higher_is_better=False (--lower-is-better) if lower ones are, or True to say "
            "that it is right."
        )


def ask_for_direction(result: TuningResult, measure: Evaluate) -> None:
    """Warn if a function of the user's is so much better than FP32 that it may be an error."""
    named = {*metrics(), *library_metric_names()}
    is_named = isinstance(measure, DataEvaluation) and measure.metric in named
    if is_named or not result.met or result.metric is None or not result.baseline:
        return
    better = (result.metric - result.baseline) / abs(result.baseline)
    if abs(better) < _SUSPICIOUS_GAIN or (better > 0) != result.criterion.higher_is_better:
        return
    more, less = ("higher", "lower") if better > 0 else ("lower", "higher")
    option = "" if better < 0 else " (--lower-is-better)"
    _logger.warning(
        f"The metric of the quantized model is {result.metric:.6g}, and {result.baseline:.6g} "
        f"in FP32: is {more} really better? If {less} is better, use "
        f"AccuracyCriterion(higher_is_better={better < 0}){option}."
    )
