"""The same record has the same answer, whatever is measured later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from costed_backend import RunsBackend
import pytest

from optuna_quant.callbacks.exit_policy import is_answer
from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Measured
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.report import collect_recorded
from optuna_quant.selection.answer import candidates
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.finalists import measure_finalists
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.recorded_study import BEST
from optuna_quant.tuning.recorded_study import RecordedTrials
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.status import status_of


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)

Timer = Callable[..., Measured]


def timer(fp32: float, *seconds: float) -> Timer:
    """A clock by which the models take the given times, in their order."""

    def measure(run: Any, others: Any, **kwargs: Any) -> Measured:
        found = seconds[: len(others)]
        ratios = [Ratio(s / fp32, s / fp32 - 0.01, s / fp32 + 0.01) for s in found]
        return Measured(fp32, found, ratios, 5)

    return measure


def never(*args: Any, **kwargs: Any) -> Measured:
    raise AssertionError("It was measured again.")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., TuningResult]:
    def go(measure: Timer, storage: str = "journal", **kwargs: Any) -> TuningResult:
        monkeypatch.setattr(
            "optuna_quant.tuning.finish.measure_finalists",
            lambda found, **kw: measure_finalists(found, **kw, measure_against=measure),
        )
        # By the table "a" and "b" gain the same, but for 1 of 1000, and cannot both be quantized.
        return tune(
            backend=RunsBackend({"a": 0.06, "b": 0.06}, {"a": 0.5, "b": 0.499}),
            evaluate=lambda model: model.accuracy,
            storage=tmp_path / storage,
            **{
                "accuracy_criterion": TOLERANT,
                "tuning_criterion": TuningCriterion(timeout=None, strategy="basic"),
            }
            | kwargs,
        )

    return go


def test_same_record_has_the_same_answer(search: Callable[..., TuningResult]) -> None:
    first = search(timer(2.1e-3, 1.6e-3, 1.5e-3))
    assert first.fallback_ops == ("b",)
    # By another timer the other one is faster; so it might be in another process.
    for again in (search(timer(2.1e-3, 1.5e-3, 1.6e-3)), search(never)):
        assert again.trial is not None and first.trial is not None
        assert again.trial.number == first.trial.number
        assert again.gain == first.gain
        assert str(again) == str(first)
    other = search(timer(2.1e-3, 1.5e-3, 1.6e-3), "other")
    assert other.fallback_ops == ("a",)  # The timer does decide where nothing is recorded.


def test_all_that_reads_the_record_names_the_measured_answer(
    search: Callable[..., TuningResult],
) -> None:
    result = search(timer(2.1e-3, 1.6e-3, 1.5e-3))
    assert result.trial is not None
    number = result.trial.number
    study = result.study
    assert RecordedTrials(study).find(BEST).number == number
    assert status_of(study).best_trial == number
    assert collect_recorded(study).answer.trial == number
    chosen = result.choose(objective="latency")
    assert chosen.trial is not None and chosen.trial.number == number
    assert chosen.message.count("The answer is trial") == 1


def test_more_trials_are_another_measurement(search: Callable[..., TuningResult]) -> None:
    first = search(timer(2.1e-3, 1.6e-3, 1.5e-3))
    assert first.fallback_ops == ("b",)
    # With a larger tolerance, the model with both ops is the only finalist.
    loose = AccuracyCriterion(criterion="absolute", tolerable_loss=0.2)
    again = search(timer(2.1e-3, 1.1e-3), accuracy_criterion=loose)
    assert again.fallback_ops == ()
    assert again.gain is not None and again.gain.seconds == 1.1e-3
    # What was measured for the first question is still its answer.
    assert search(never).fallback_ops == ("b",)


def test_the_summary_says_why_another_trial_is_the_answer(
    search: Callable[..., TuningResult],
) -> None:
    result = search(timer(2.1e-3, 1.6e-3, 1.5e-3))
    assert result.trial is not None
    number = result.trial.number
    assert str(result).endswith(
        f" The answer is trial {number}: of the 2 models that are predicted to be about as fast, "
        "it is the fastest as measured."
    )
    same = search(timer(2.1e-3, 1.5e-3, 1.6e-3), "other")
    assert "The answer is" not in str(same)


def test_an_intermediate_step_that_is_cheaper_is_explained(
    search: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = search(timer(2.1e-3, 1.5e-3, 1.6e-3))
    assert result.trial is not None
    cheapest = result.trial.number
    monkeypatch.setattr(
        "optuna_quant.callbacks.exit_policy.is_answer",
        lambda study, trial: trial.number != cheapest and is_answer(study, trial),
    )
    monkeypatch.setattr(
        "optuna_quant.tuning.conclude.is_answer",
        lambda study, trial: trial.number != cheapest and is_answer(study, trial),
    )
    tuning = TuningCriterion(timeout=0, strategy="basic")
    said = search(never, tuning_criterion=tuning)
    other = next(
        c for c in candidates(said.study, TOLERANT) if c.met and c.trial.number != cheapest
    )
    assert f"stopped: Trial {other.trial.number} meets the criterion" in str(said)
    assert str(said).endswith(f" The answer is trial {cheapest}: predicted 1.5 ms, it is better.")
