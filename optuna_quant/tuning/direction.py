"""Refuse or ask about a metric that seems to have the opposite direction."""

from __future__ import annotations

from functools import partial
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

_UNCLEAR = frozenset(
    {"neg", "negative", "negated", "minus", "inv", "inverse", "inverted", "no", "not", "without"}
    | {"free", "accuracy", "acc", "score", "reduction", "gain", "within", "correct"}
)
"""Words that may turn such a name around: ``neg_loss``, ``accuracy_within_error``."""

_WORDS = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

# Quantization does not make a model so much better, as a part of the FP32 model's metric.
_SUSPICIOUS_GAIN = 0.2


_logger = get_logger(__name__)


def check_direction(function: object, given: AccuracyCriterion | None) -> None:
    """Refuse a function that is called like an error, if nothing says which way is better.

    In the wrong direction a search hands out the worst model that it finds. It is a warning where
    the name says something else as well, such as ``neg_loss``.

    Args:
        function:
            The user's evaluation or metric; what has no name is passed over.
        given:
            The criterion that the user gives; :obj:`None` for the default.

    Raises:
        ValueError:
            If its name is that of an error or a loss.
    """
    if given is not None and (given.says_direction or not given.higher_is_better):
        return
    name = _name_of(function)
    words = {word.lower() for word in _WORDS.findall(name)}
    if not words & _OF_ERRORS:
        return
    text = (
        f"{name}() is called like an error, of which lower values are better, but without a word "
        "higher ones are taken to be better. If lower ones are, give "
        "higher_is_better=False (--lower-is-better); if higher ones are, "
        "higher_is_better=True (--higher-is-better)."
    )
    if not words & _UNCLEAR:
        raise ValueError(text)
    warn_user(text)


def _name_of(function: object) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", ""))


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
