"""Results of every kind, of searches without a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from costed_backend import CostedBackend
from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data

from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Gain
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.outcome import ResultKind
from optuna_quant.tuning.result import TuningResult


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.05, "c": 0.3}
FAST = {"a": 0.2, "b": 0.2, "c": 0.2}
SLOW = {"a": 3.0, "b": 4.0, "c": 5.0}


def accuracy(model: FakeModel) -> float:
    return model.accuracy


def search(
    damage: dict[str, float] = DAMAGE, quantized: dict[str, float] | None = None, **given: Any
) -> TuningResult:
    """A search with a fake backend, with costs if they are given."""
    backend = FakeBackend(damage) if quantized is None else CostedBackend(damage, quantized)
    usual = {"evaluate": accuracy, "accuracy_criterion": TOLERANT, "measure_gain": False}
    return tune(backend=backend, **{**usual, **given})


def sampled(damage: dict[str, float] = DAMAGE, **given: Any) -> TuningResult:
    """A search whose evaluations see samples one by one."""
    usual: dict[str, Any] = {"data": fake_data(1000), "evaluate": None}
    return search(damage, **{**usual, **given})


def met_without_gain() -> TuningResult:
    slower = Gain(
        seconds=2e-3,
        fp32_seconds=1e-3,
        time_ratio=Ratio(2.0, 1.9, 2.1),
        nbytes=3900,
        fp32_bytes=4000,
        batch=1,
        threads=1,
        runs=100,
    )
    return replace(search(quantized=FAST), gain=slower)


def holdout_missed() -> TuningResult:
    def elsewhere(model: FakeModel) -> float:
        return model.accuracy - (0.5 if model.config.quantized_ops else 0.0)

    return search(holdout=elsewhere)


def not_reproducible() -> TuningResult:
    return replace(search(), met=False, not_repeatable="RuntimeError: it failed")


def not_fully_evaluated() -> TuningResult:
    return replace(search(), met=False, samples=(64, 1000))


def not_met() -> TuningResult:
    return search({"a": 0.4, "b": 0.5, "c": 0.6}, strategy="random", max_trials=3)


def nothing_evaluated() -> TuningResult:
    return replace(
        search(), met=False, trial=None, config=None, metric=None, loss=None, models_compared=0
    )


KINDS: dict[ResultKind, Callable[[], TuningResult]] = {
    ResultKind.MET: search,
    ResultKind.HOLDOUT_MISSED: holdout_missed,
    ResultKind.MET_WITHOUT_GAIN: met_without_gain,
    ResultKind.FP32: lambda: search(quantized=SLOW),
    ResultKind.NOTHING_EVALUATED: nothing_evaluated,
    ResultKind.NOT_REPRODUCIBLE: not_reproducible,
    ResultKind.NOT_FULLY_EVALUATED: not_fully_evaluated,
    ResultKind.NOT_MET: not_met,
}
