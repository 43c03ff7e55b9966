"""When a metric is good enough."""

from __future__ import annotations

from dataclasses import asdict
import math
import pickle

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import optuna
import pytest

from optuna_quant.criteria import ROUNDING
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.options.criterion import TuningCriterion


FINITE = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


@pytest.mark.parametrize(
    ("criterion", "higher", "tolerance", "baseline", "threshold"),
    [
        ("relative", True, 0.01, 0.9, 0.891),
        ("relative", False, 0.01, 2.0, 2.02),
        ("relative", True, 0.01, -50.0, -50.5),
        ("relative", False, 0.01, -50.0, -49.5),
        ("relative", True, 1, 0.9, 0.0),
        ("absolute", True, 0.01, 0.9, 0.89),
        ("absolute", False, 0.5, 2.0, 2.5),
        ("absolute", True, 0.5, -2.0, -2.5),
        ("absolute", True, 0.5, 0.0, -0.5),
        ("absolute", True, 5, 90.0, 85.0),
        ("absolute", True, 0, 0.9, 0.9),
    ],
)
def test_threshold_value(
    criterion: str, higher: bool, tolerance: float, baseline: float, threshold: float
) -> None:
    judge = AccuracyCriterion(
        higher_is_better=higher, criterion=criterion, tolerable_loss=tolerance
    )
    assert judge.threshold(baseline) == pytest.approx(threshold, abs=1e-12)
    assert judge.meets(judge.threshold(baseline), baseline)
    assert judge.meets(threshold, baseline)
    sign = -1 if higher else 1
    assert not judge.meets(threshold + sign * 1e-6, baseline)
    assert judge.meets(threshold - sign * 1e-6, baseline)
    assert judge.meets(baseline, baseline)


def test_a_direction_that_is_not_given_is_no_part_of_what_a_criterion_says() -> None:
    left, given = AccuracyCriterion(), AccuracyCriterion(higher_is_better=True)
    assert left.higher_is_better is True
    assert left == given
    assert asdict(left) == asdict(given) == asdict(AccuracyCriterion(**asdict(left)))
    assert (left.says_direction, given.says_direction) == (False, True)
    assert pickle.loads(pickle.dumps(left)).says_direction is False
    assert AccuracyCriterion(higher_is_better=False).says_direction


@pytest.mark.parametrize(
    ("criterion", "higher", "metric", "baseline", "loss"),
    [
        ("relative", True, 0.81, 0.9, 0.1),
        ("relative", True, 0.99, 0.9, -0.1),
        ("relative", False, 2.2, 2.0, 0.1),
        ("relative", True, -55.0, -50.0, 0.1),
        ("absolute", True, 0.8, 0.9, 0.1),
        ("absolute", False, 2.2, 2.0, 0.2),
        ("absolute", False, 1.0, 0.0, 1.0),
    ],
)
def test_loss_value(
    criterion: str, higher: bool, metric: float, baseline: float, loss: float
) -> None:
    judge = AccuracyCriterion(higher_is_better=higher, criterion=criterion)
    assert judge.loss(metric, baseline) == pytest.approx(loss)


def test_equality_meets_whatever_floating_point_says() -> None:
    # 0.99 - 0.98 > 0.01 in floating point.
    judge = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)
    lower = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01, higher_is_better=False)
    relative = AccuracyCriterion(tolerable_loss=0.01)
    for percent in range(1, 100):
        assert judge.meets((percent - 1) / 100, percent / 100)
        assert lower.meets((percent + 1) / 100, percent / 100)
        assert relative.meets(99 * percent / 1e4, percent / 100)


def test_rounding_is_not_a_tolerance() -> None:
    judge = AccuracyCriterion(criterion="absolute", tolerable_loss=0)
    assert judge.meets(1 - ROUNDING / 2, 1.0)
    assert not judge.meets(1 - 2 * ROUNDING, 1.0)
    # One sample of ten million.
    assert not judge.meets(9_899_999 / 1e7, 0.99)


@given(
    st.sampled_from(["relative", "absolute"]),
    st.booleans(),
    st.floats(0, 1),
    FINITE,
    FINITE,
)
def test_violation_agrees_with_all_else(
    kind: str, higher: bool, tolerance: float, metric: float, baseline: float
) -> None:
    if kind == "relative" and baseline == 0:
        return
    judge = AccuracyCriterion(higher_is_better=higher, criterion=kind, tolerable_loss=tolerance)
    violation = judge.violation(metric, baseline)
    assert judge.meets(metric, baseline) == (violation <= 0)
    worse = judge.threshold(baseline) - metric if higher else metric - judge.threshold(baseline)
    assert violation == pytest.approx(worse, abs=ROUNDING * max(abs(metric), abs(baseline)))
    # The loss says the same as the violation, but for rounding.
    loss = judge.loss(metric, baseline)
    if abs(loss - tolerance) > 1e-6 * max(1, abs(loss)):
        assert (loss <= tolerance) == (violation <= 0)


@given(st.booleans(), FINITE, st.floats(0, 1))
def test_meets_is_monotone(higher: bool, baseline: float, tolerance: float) -> None:
    judge = AccuracyCriterion(
        higher_is_better=higher, criterion="absolute", tolerable_loss=tolerance
    )
    better = baseline + (1 if higher else -1) * np.linspace(-2, 2, 41)
    outcomes = [judge.meets(float(metric), baseline) for metric in better]
    assert outcomes == sorted(outcomes)


@pytest.mark.parametrize("higher", [True, False])
def test_metric_that_is_no_number_is_never_good_enough(higher: bool) -> None:
    judge = AccuracyCriterion(higher_is_better=higher)
    assert judge.violation(math.nan, 0.9) == math.inf
    worst = -math.inf if higher else math.inf
    assert judge.violation(worst, 0.9) == math.inf
    assert not judge.meets(worst, 0.9)


def test_relative_loss_to_zero_is_an_error_that_says_what_to_do() -> None:
    judge = AccuracyCriterion(criterion="relative")
    for ask in (judge.threshold, judge.check_baseline):
        with pytest.raises(ValueError, match="use criterion='absolute'"):
            ask(0.0)
    with pytest.raises(ValueError, match="use criterion='absolute'"):
        judge.loss(0.1, 0.0)
    AccuracyCriterion(criterion="absolute").check_baseline(0.0)


@pytest.mark.parametrize("baseline", [math.nan, math.inf, -math.inf])
def test_baseline_must_be_finite(baseline: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        AccuracyCriterion().check_baseline(baseline)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"tolerable_loss": -0.1}, ValueError, "tolerable_loss must be .* at least 0.*-0.1"),
        ({"tolerable_loss": math.nan}, ValueError, "nan"),
        ({"tolerable_loss": math.inf, "criterion": "absolute"}, ValueError, "inf"),
        ({"tolerable_loss": 1.5}, ValueError, "below 1 .*1.5.*criterion='absolute'"),
        ({"tolerable_loss": True}, TypeError, "tolerable_loss must be a number.*True"),
        ({"tolerable_loss": "0.1"}, TypeError, "tolerable_loss must be a number.*'0.1'"),
        ({"tolerable_loss": "1%"}, TypeError, "'1%'; for 1% give 0.01"),
        (
            {"tolerable_loss": "1%", "criterion": "absolute"},
            TypeError,
            "in units of the metric, so .* criterion='relative' with 0.01",
        ),
        ({"tolerable_loss": -0.1}, ValueError, "A gain over the FP32 model cannot be demanded"),
        ({"tolerable_loss": None}, TypeError, "tolerable_loss must be a number.*None"),
        ({"criterion": "percent"}, ValueError, "relative, absolute.*'percent'"),
        ({"higher_is_better": "no"}, TypeError, "higher_is_better.*'no'"),
        ({"higher_is_better": 1}, TypeError, "higher_is_better"),
    ],
)
def test_accuracy_criterion_refuses(
    kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AccuracyCriterion(**kwargs)


def test_accuracy_criterion_takes_integers_and_numpy_numbers() -> None:
    assert AccuracyCriterion(tolerable_loss=0).tolerable_loss == 0.0
    assert AccuracyCriterion(tolerable_loss=1).tolerable_loss == 1.0
    assert type(AccuracyCriterion(tolerable_loss=np.float64(0.1)).tolerable_loss) is float
    assert AccuracyCriterion(criterion="absolute", tolerable_loss=5).tolerable_loss == 5.0


def test_accuracy_criterion_is_a_value() -> None:
    assert AccuracyCriterion(tolerable_loss=0.01) == AccuracyCriterion()
    assert hash(AccuracyCriterion()) == hash(AccuracyCriterion())
    assert pickle.loads(pickle.dumps(AccuracyCriterion())) == AccuracyCriterion()
    assert pickle.loads(pickle.dumps(TuningCriterion())) == TuningCriterion()


def test_accuracy_criterion_reads_well() -> None:
    assert str(AccuracyCriterion()) == "at most 1% relative loss, higher is better"
    # No powers of ten.
    shown = [AccuracyCriterion().show(loss) for loss in (0.00451, 0.9999, 1.0, -52.1)]
    assert shown == ["0.451%", "100%", "100%", "-5210%"]
    absolute = AccuracyCriterion(criterion="absolute", tolerable_loss=0.02, higher_is_better=False)
    assert str(absolute) == "at most 0.02 absolute loss, lower is better"


def test_direction_must_agree_with_the_study() -> None:
    study = optuna.create_study(direction="minimize", study_name="mine")
    with pytest.raises(ValueError, match="'mine'.*'minimize'.*must be 'maximize'"):
        AccuracyCriterion(higher_is_better=True).check_direction(study)
    AccuracyCriterion(higher_is_better=False).check_direction(study)
    # Of several objectives the first is the metric.
    several = optuna.create_study(directions=["maximize", "minimize"])
    AccuracyCriterion(higher_is_better=True).check_direction(several)


def test_tuning_criterion_defaults_are_those_of_the_field() -> None:
    criterion = TuningCriterion()
    assert (criterion.timeout, criterion.max_trials, criterion.strategy) == (0, 100, None)
    assert criterion.objective is None
    assert criterion.strategy_kwargs == {}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"timeout": -1}, ValueError, "timeout.*at least 0.*-1"),
        ({"timeout": math.inf}, ValueError, "use None for no limit"),
        ({"timeout": [10]}, TypeError, r"timeout must be a number.*\[10\]"),
        ({"timeout": True}, TypeError, "timeout must be a number"),
        ({"max_trials": 0}, ValueError, "max_trials must be at least 1.*0"),
        ({"max_trials": 1.5}, TypeError, "max_trials must be an integer.*1.5"),
        ({"max_trials": True}, TypeError, "max_trials must be an integer"),
        ({"objective": "speed"}, ValueError, "latency, size, ops.*'speed'.*mean 'latency'"),
        ({"strategy": 3}, TypeError, "strategy must be a name.*3"),
        ({"strategy_kwargs": 3}, TypeError, "strategy_kwargs must be a dict.*3"),
        ({"timeout": 0, "stop_at_first": False}, ValueError, "timeout=None"),
    ],
)
def test_tuning_criterion_refuses(
    kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TuningCriterion(**kwargs)
