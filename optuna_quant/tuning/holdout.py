"""Evaluate the answer on samples that the search did not see."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import numpy as np
from optuna.logging import get_logger

from optuna_quant.callbacks import StopReason
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.given_scores import GivenScores
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.evaluation.value import as_metric
from optuna_quant.evaluation.value import for_fp32
from optuna_quant.evaluation.value import given_to
from optuna_quant.sequential.interval import loss_interval
from optuna_quant.sequential.population import is_bounded
from optuna_quant.tuning.validation import HoldoutResult


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.base import NativeModel
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.setup import Evaluate
    from optuna_quant.tuning.result import TuningResult


_logger = get_logger(__name__)

T = TypeVar("T")

_WHAT = "The evaluation of the hold-out set"


def _unlimited(evaluate: Callable[[], T]) -> T:
    return evaluate()


def with_holdout(
    result: TuningResult,
    evaluate: Evaluate,
    *,
    limited: Callable[[Callable[[], Any]], Any] = _unlimited,
) -> TuningResult:
    """The result with what the hold-out set says of its model.

    The model of the result and the FP32 model are built and evaluated, once each. Whatever goes
    wrong with it, the result is kept, and says what it was.

    Args:
        result:
            The result of the search, whether or not the criterion is met.
        evaluate:
            Gives the metric of a model on the hold-out set; if it is a
            :class:`~optuna_quant.evaluation.sample_evaluation.SampleEvaluation` with bounds, from
            the scores of single samples.
        limited:
            Runs an evaluation, and raises if it takes too long.
    """
    if result.trial is None:
        return replace(result, holdout_missing="no quantized model was evaluated")
    if result.is_fp32:
        return replace(result, holdout_missing="the answer is the FP32 model itself")
    if result.stopped_because == StopReason.INTERRUPTED:
        return replace(result, holdout_missing="the search was interrupted")
    try:
        with exits_are_errors(_WHAT):
            found = _measured(result, evaluate, limited)
    except KeyboardInterrupt:
        # That is not to be overlooked: the caller may have meant to end all.
        result = replace(result, stopped_because=StopReason.INTERRUPTED)
        reason = "its evaluation was interrupted"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return replace(result, holdout=found)
    _logger.warning(f"There is no result of the hold-out set: {reason}")
    return replace(result, holdout_missing=reason)


def _measured(
    result: TuningResult,
    evaluate: Evaluate,
    limited: Callable[[Callable[[], Any]], Any],
) -> HoldoutResult:
    assert result.trial is not None
    # FP32 first: a metric may compare the other one with what it gives.
    fp32 = result.backend.quantize(result.space.fp32())
    evaluated = partial(_evaluate, is_candidate=False)
    baseline = limited(
        partial(evaluated, for_fp32(evaluate), given_to(evaluate, fp32), result.criterion)
    )
    del fp32  # One at a time is in memory.
    model = rebuild(result.trial, backend=result.backend, space=result.space)
    candidate = limited(partial(_evaluate, evaluate, given_to(evaluate, model), result.criterion))
    return _compare(candidate, baseline, evaluate, result.criterion)


def check_other_data(data: object, holdout: object, *, what: str) -> None:
    """Refuse a hold-out set that the search uses as well.

    Args:
        data:
            What the search evaluates: data in any form, or a function.
        holdout:
            The hold-out set, in the same form.
        what:
            What the first one is called, for the message.

    Raises:
        ValueError:
            If both are the same object, path or arrays.
    """
    if _is_same(data, holdout):
        shown = f" ({os.fspath(data)!r})" if isinstance(data, str | os.PathLike) else ""
        raise ValueError(
            f"holdout and {what} are the same{shown}: the hold-out set must hold other samples, "
            "which the search does not see."
        )


def _is_same(one: object, other: object) -> bool:
    if one is other:
        return True
    if isinstance(one, str | os.PathLike) and isinstance(other, str | os.PathLike):
        if os.path.exists(one) and os.path.exists(other):
            return os.path.samefile(one, other)
        return os.path.realpath(one) == os.path.realpath(other)
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(_is_same(mine, its) for mine, its in zip(one, other, strict=True))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(one[key] is other[key] for key in one)
    # The same method of the same object is another object each time.
    return bool(callable(one) and one == other)


def _evaluate(
    evaluate: Evaluate,
    model: NativeModel,
    criterion: AccuracyCriterion,
    *,
    is_candidate: bool = True,
) -> NDArray[np.float64] | float:
    """The scores of all samples, or the metric if there are none."""
    if isinstance(evaluate, FunctionEvaluation):
        found = evaluate.measure(model) if is_candidate else evaluate.see_fp32(model)
        if isinstance(found, GivenScores):
            return found.values if found.bounds is not None else found.mean
        return as_metric(found, higher_is_better=criterion.higher_is_better, what=_WHAT)
    if isinstance(evaluate, SampleEvaluation) and evaluate.bounds is not None:
        batches = evaluate.scores(model, np.arange(evaluate.samples))
        return np.concatenate([np.asarray(batch, dtype=np.float64) for batch in batches])
    return as_metric(evaluate(model), higher_is_better=criterion.higher_is_better, what=_WHAT)


def _compare(
    candidate: NDArray[np.float64] | float,
    baseline: NDArray[np.float64] | float,
    evaluate: Evaluate,
    criterion: AccuracyCriterion,
) -> HoldoutResult:
    metric, fp32 = float(np.mean(candidate)), float(np.mean(baseline))
    loss = criterion.loss(metric, fp32)
    interval = None
    bounds = getattr(evaluate, "bounds", None)
    is_of_samples = isinstance(candidate, np.ndarray) and isinstance(baseline, np.ndarray)
    if is_of_samples and bounds is not None and is_bounded(bounds):
        assert isinstance(candidate, np.ndarray) and isinstance(baseline, np.ndarray)
        interval = loss_interval(
            candidate,
            baseline,
            bounds=bounds,
            higher_is_better=criterion.higher_is_better,
            relative=criterion.criterion == "relative",
        )
    samples = getattr(evaluate, "samples", None)
    return HoldoutResult(
        metric=metric,
        baseline=fp32,
        loss=loss,
        met=criterion.meets(metric, fp32),
        loss_interval=interval,
        samples=samples or None if isinstance(samples, int) else None,
    )
