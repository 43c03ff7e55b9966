"""Check the result of an evaluation: one number."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING
from typing import TypeVar

import numpy as np

from optuna_quant.backends.base import native_of
from optuna_quant.evaluation.labelled import DataEvaluation


if TYPE_CHECKING:
    from optuna_quant.backends.base import Model
    from optuna_quant.backends.base import NativeModel


_Evaluation = TypeVar("_Evaluation")


def given_to(evaluate: object, model: Model) -> NativeModel:
    """What an evaluation gets of a model.

    Labelled data take the model itself, what the user has written the runtime's own object.
    """
    return model if isinstance(evaluate, DataEvaluation) else native_of(model)


def for_fp32(evaluate: _Evaluation) -> _Evaluation:
    """What evaluates the FP32 model; most evaluations make no difference."""
    own = getattr(evaluate, "for_fp32", None)
    return evaluate if own is None else own()


def as_metric(value: object, *, higher_is_better: bool, what: str = "The evaluation") -> float:
    """Turn what an evaluation returned into a metric.

    Args:
        value:
            A number, or an array or tensor that holds exactly one. Infinity counts as infinitely
            bad (a perplexity that overflows, for instance).
        higher_is_better:
            Whether a higher metric is better.
        what:
            What returned it, for the message.

    Raises:
        ValueError:
            If it is NaN, :obj:`None`, not a number, or infinitely good.
    """
    number = _number(value)
    if number is None:
        raise ValueError(
            f"{what} returned {_shown(value)}, but it must return one number: the metric."
        )
    if math.isnan(number):
        raise ValueError(f"{what} returned NaN, but it must return a number: the metric.")
    if math.isinf(number) and (number > 0) == higher_is_better:
        raise ValueError(f"{what} returned {number}, which cannot be compared with anything.")
    return number


def _number(value: object) -> float | None:
    if isinstance(value, bool | str | bytes) or value is None:
        return None
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if not isinstance(value, Real):
        # Tensors of one element; a numpy number is a Real.
        item = getattr(value, "item", None)
        try:
            value = item() if callable(item) else None
        except (ValueError, RuntimeError, TypeError):
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            return None
    if isinstance(value, np.floating) and not isinstance(value, float):
        # As its digits say: numpy.float32(0.98) is 0.98, not 0.9800000190734863.
        return float(str(value))
    return float(value)


def _shown(value: object, most: int = 60) -> str:
    text = repr(value)
    text = text if len(text) <= most else text[: most - 3] + "..."
    return text if value is None else f"{text} (a {type(value).__name__})"
