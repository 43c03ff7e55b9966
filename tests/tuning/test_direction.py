"""The direction of a metric, as far as its name tells it."""

from __future__ import annotations

from collections.abc import Callable
import warnings

import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant.tuning.direction import warn_of_direction


def called(name: str) -> Callable[[object], float]:
    def function(model: object) -> float:
        return 1.0

    function.__name__ = name
    return function


@pytest.mark.parametrize("name", ["perplexity", "val_loss", "word_error_rate", "rmse", "NLL"])
def test_what_is_called_like_an_error_is_warned_of(name: str) -> None:
    with pytest.warns(
        UserWarning, match=rf"Of {name}\(\) higher values .* higher_is_better=False"
    ):
        warn_of_direction(called(name), None)
    with pytest.warns(UserWarning, match="higher_is_better"):
        warn_of_direction(called(name), AccuracyCriterion(tolerable_loss=0.02))


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (called("accuracy"), None),
        (called("glossary_score"), None),
        (called("perplexity"), AccuracyCriterion(higher_is_better=False)),
        (called("neg_loss"), AccuracyCriterion(higher_is_better=True)),
        ("mse", None),
        (None, None),
    ],
)
def test_nothing_is_said_where_it_is_clear(
    function: object, given: AccuracyCriterion | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_direction(function, given)
