"""Arguments of objectives that stand in each other's place are refused at once."""

from __future__ import annotations

from typing import Any

from fake_backend import FakeBackend
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import ParetoObjective
from optuna_quant import QuantObjective


BACKEND = FakeBackend({"a": 0.0, "b": 0.1})
SPACE = BACKEND.tuning_space()
CRITERION = AccuracyCriterion(tolerable_loss=0.01)


def evaluate(model: Any) -> float:
    return float(model.accuracy)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((SPACE, BACKEND, evaluate, CRITERION), "space must be a TuningSpace, .* The order is"),
        ((SPACE, SPACE, evaluate, CRITERION), "backend must be an object .* The order is"),
        ((BACKEND, SPACE, CRITERION, evaluate), "evaluate must be a function .* The order is"),
        ((BACKEND, SPACE, evaluate, 0.01), "criterion must be an AccuracyCriterion, as"),
    ],
)
def test_what_is_in_the_wrong_place_is_named(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        QuantObjective(*given)
    with pytest.raises(TypeError, match=message):
        ParetoObjective(*given, objectives="size")


def test_the_order_names_the_class() -> None:
    with pytest.raises(TypeError, match=r"is ParetoObjective\(backend, space, evaluate, crit"):
        ParetoObjective(SPACE, BACKEND, evaluate, CRITERION, objectives="size")  # type: ignore[arg-type]
