"""The direction of a metric, as far as its name tells it."""

from __future__ import annotations

from collections.abc import Callable
import functools
import warnings

from fake_backend import FakeBackend
import pytest

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant.tuning.direction import check_direction


def called(name: str) -> Callable[[object], float]:
    def function(model: object) -> float:
        return 1.0

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    "name",
    ["perplexity", "val_loss", "word_error_rate", "rmse", "NLL", "validationLoss", "MSELoss"],
)
def test_what_is_called_like_an_error_is_refused_without_a_direction(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}\(\) .* give higher_is_better=False"):
        check_direction(called(name), None)
    with pytest.raises(ValueError, match="higher_is_better=True"):
        check_direction(called(name), AccuracyCriterion(tolerable_loss=0.02))
    with pytest.raises(ValueError, match=name):
        check_direction(functools.partial(called(name), None), None)


@pytest.mark.parametrize(
    "name", ["neg_loss", "accuracy_within_error", "minusMse", "no_error_rate"]
)
def test_a_name_that_may_be_turned_around_is_warned_of(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{name}\(\) .* higher_is_better=True"):
        check_direction(called(name), None)


def test_nothing_runs_before_the_direction_is_clear() -> None:
    backend = FakeBackend()

    def val_loss(model: object) -> float:
        raise AssertionError

    with pytest.raises(ValueError, match="higher_is_better=False"):
        optuna_quant.tune(backend=backend, evaluate=val_loss)
    assert not backend.calls
    assert not backend.built


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
        check_direction(function, given)
