"""The front of a study, and another choice from its record."""

from __future__ import annotations

import itertools
import random

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import optuna
from optuna.trial import TrialState
import pytest
from spaces import make_space

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.selection import FrontPoint
from optuna_quant.selection import front_points
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline


DAMAGE = {"a": 0.04, "b": 0.0, "c": 0.01, "d": 0.02}
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.03)


class Evaluation:
    """The metric of fake models, which counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: FakeModel) -> float:
        self.calls += 1
        return model.accuracy


def seconds(config: QuantConfig) -> float:
    """What a configuration takes: some ops gain much, one loses."""
    gains = {"a": 3.0, "b": 1.0, "c": 2.0, "d": -0.5}
    return 10.0 - sum(gains[op] for op in config.quantized_ops)


def tuned(evaluate: Evaluation | None = None, **kwargs: object) -> TuningResult:
    given = {
        "backend": FakeBackend(DAMAGE),
        "evaluate": evaluate or Evaluation(),
        "accuracy_criterion": CRITERION,
        "verify": False,
        "costs": seconds,
        "op_types": "all",  # Those that are slower as well.
        "tuning_criterion": TuningCriterion(
            strategy="exhaustive", timeout=None, max_trials=None, objective="latency"
        ),
    }
    return tune(**given | kwargs)


def is_beaten(cost: float, metric: float, others: list[tuple[float, float]]) -> bool:
    return any(c <= cost and m >= metric and (c, m) != (round(cost, 9), metric) for c, m in others)


@pytest.fixture(scope="module")
def everything() -> TuningResult:
    """A study that has evaluated all configurations, those with ops in fallback included."""
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    found = tuned(tuning_criterion=TuningCriterion(max_trials=1, objective="latency"))
    for i in range(space.size):
        found.study.enqueue_trial(space.params_of(space.config_at(i)), skip_if_exists=True)
    return tuned(storage=found.study._storage, study_name=found.study.study_name)


def test_front_is_that_of_trying_all_configurations(everything):
    backend = everything.backend
    all_of_them = []
    for quantized in itertools.product([True, False], repeat=len(DAMAGE)):
        fallback = [op for op, q in zip(DAMAGE, quantized, strict=True) if not q]
        config = everything.space.default().with_fallback(*fallback)
        all_of_them.append((seconds(config), backend.accuracy(config)))
    expected = sorted({p for p in all_of_them if not is_beaten(*p, all_of_them)})
    found = everything.front()
    assert found["latency"].tolist() == pytest.approx([cost for cost, _ in expected])
    assert found["metric"].tolist() == pytest.approx([metric for _, metric in expected])
    assert len(expected) > 3
    assert found["loss"].tolist() == pytest.approx([0.9 - metric for _, metric in expected])
    assert found["met"].tolist() == [0.9 - metric <= 0.03 + 1e-9 for _, metric in expected]
    assert found["evaluated"].eq(1).all()
    for row in found.itertuples():
        trial = everything.study.trials[row.trial]
        assert trial.values[0] == row.metric
        assert row.fallback_ops == trial.user_attrs[record.FALLBACK_OPS]


def test_fp32_is_on_the_front_unless_something_as_good_is_cheaper(everything):
    # Op b costs no accuracy and gains a second.
    assert 10.0 not in everything.front()["latency"].tolist()
    # By the bytes as well; but where all ops do damage FP32 is the best model.
    harmful = tuned(
        backend=FakeBackend({"a": 0.1, "b": 0.2, "c": 0.1, "d": 0.3}),
        tuning_criterion=TuningCriterion(max_trials=3, timeout=None, objective="latency"),
    )
    last = harmful.front().iloc[-1]
    assert (last["latency"], last["loss"], last["fallback_ops"]) == (10.0, 0.0, 4)
    assert bool(last["met"])
    assert last["trial"] == 0


def test_another_measure_gives_another_front(everything):
    by_size = everything.front(objective="size")
    assert by_size["size"].is_monotonic_increasing
    assert by_size["size"].iloc[0] == 4000 - 4 * 100 - 1
    assert everything.front(objective="ops")["ops"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="bit_operations.*known are: latency, ops, size"):
        everything.front(objective="bit_operations")
    with pytest.raises(ValueError, match="objective must be one of"):
        everything.front(objective="seize")


def study_of(
    rows: list[tuple[float, float]], *, higher_is_better: bool = True
) -> tuple[optuna.Study, AccuracyCriterion]:
    """A study with a baseline of 1 and complete trials of a size and a metric."""
    space = make_space(3)
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    set_baseline(study, Baseline(1.0))
    for size, metric in rows:
        trial = optuna.trial.create_trial(
            params=space.params_of(space.default()),
            distributions=space.distributions(),
            value=metric,
            user_attrs={record.MODEL_BYTES: size, record.FALLBACK_OPS: 0},
        )
        study.add_trial(trial)
    return study, AccuracyCriterion(higher_is_better=higher_is_better)


def values(points: list[FrontPoint]) -> list[tuple[float, float]]:
    return [(point.cost, point.metric) for point in points]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_order_of_trials_does_not_matter(higher_is_better):
    rng = random.Random(3)
    rows = [(rng.randrange(10), rng.randrange(10) / 10) for _ in range(30)]
    sign = 1 if higher_is_better else -1
    expected = [
        (size, metric)
        for size, metric in sorted(set(rows))
        if not any(s <= size and sign * m >= sign * metric and (s, m) != (size, metric)
                   for s, m in rows)
    ]  # fmt: skip
    for _ in range(5):
        rng.shuffle(rows)
        study, criterion = study_of(rows, higher_is_better=higher_is_better)
        assert values(front_points(study, criterion, "size")) == expected


def test_of_equal_models_the_first_stands_for_all():
    study, criterion = study_of([(5, 0.5), (3, 0.5), (3, 0.5), (3, 0.4)])
    (point,) = front_points(study, criterion, "size")
    assert (point.trial, point.cost, point.metric, point.met) == (1, 3.0, 0.5, False)


def test_what_has_no_finite_metric_or_cost_is_not_considered(caplog):
    study, criterion = study_of([(5, 0.5), (1, float("inf")), (4, float("-inf"))])
    failed = optuna.trial.create_trial(state=TrialState.FAIL)
    study.add_trial(failed)
    assert values(front_points(study, criterion, "size")) == [(5, 0.5)]
    study, criterion = study_of([])
    assert front_points(study, criterion, "size") == []


def test_a_study_without_a_baseline_has_no_front():
    study = optuna.create_study(direction="maximize")
    assert front_points(study, AccuracyCriterion()) == []
    with pytest.raises(ValueError, match="direction"):
        front_points(study, AccuracyCriterion(higher_is_better=False))


def test_partly_evaluated_models_are_shown_only_when_asked_for():
    study, criterion = study_of([(5, 0.8), (3, 0.5)])
    space = make_space(3)
    seen = {"decision": "fails", "samples": 25, "of": 100, "estimate": 0.6}
    for size, estimate, samples in ((2, 0.6, 25), (2, 0.7, 10), (6, 0.7, 50), (4, 0.65, 50)):
        trial = optuna.trial.create_trial(
            state=TrialState.PRUNED,
            params=space.params_of(space.default()),
            distributions=space.distributions(),
            user_attrs={
                record.MODEL_BYTES: size,
                record.FALLBACK_OPS: 0,
                record.FINGERPRINT: f"model {size}",
                record.EVIDENCE: {**seen, "estimate": estimate, "samples": samples},
            },
        )
        study.add_trial(trial)
    full = front_points(study, criterion, "size")
    assert values(full) == [(3, 0.5), (5, 0.8)]
    both = front_points(study, criterion, "size", partial=True)
    # Of one model the estimate of most samples counts; what beats it by an estimate stays.
    assert [(p.cost, p.metric, p.evaluated) for p in both] == [
        (2, 0.6, 0.25),
        (3, 0.5, 1.0),
        (4, 0.65, 0.5),
        (5, 0.8, 1.0),
    ]
    assert not any(p.met for p in both)


# Another choice.


def test_every_tolerance_has_its_choice_without_an_evaluation(everything):
    evaluated = len(everything.study.trials)
    points = everything.front()
    for tolerance in np.linspace(0, 0.1, 21):
        found = everything.choose(tolerable_loss=float(tolerance))
        good = points[points["loss"] <= tolerance + 1e-9]
        assert found.met
        assert found.cost == pytest.approx(good["latency"].min())
        assert found.criterion.tolerable_loss == tolerance
        assert found.criterion.criterion == "absolute"
        assert found.gain is None or found.trial.number == everything.trial.number
        assert found.backend.fingerprint(found.config) == found.model().fingerprint
    assert len(everything.study.trials) == evaluated


def test_a_choice_that_nothing_meets_is_the_closest(tmp_path):
    result = tuned(
        backend=FakeBackend({"a": 0.1, "b": 0.2, "c": 0.1, "d": 0.3}),
        tuning_criterion=TuningCriterion(max_trials=1, objective="latency"),
    )
    found = result.choose(tolerable_loss=0.0001)
    assert not found.met
    assert found.config is not None
    with pytest.raises(ValueError, match="No quantized model meets"):
        found.save(tmp_path / "model.onnx")
    assert "NOT MET" in str(found)


def test_a_choice_by_another_measure_or_criterion(everything):
    smallest = everything.choose(objective="size")
    assert smallest.objective == "size"
    good = everything.front(objective="size").query("met")
    assert smallest.cost == good["size"].min()
    relative = everything.choose(criterion=AccuracyCriterion(tolerable_loss=0.05))
    assert relative.loss == pytest.approx((0.9 - relative.metric) / 0.9)


def test_the_same_model_keeps_what_is_known_of_it():
    search = TuningCriterion(strategy="pareto", timeout=None, objective="latency")
    result = tuned(verify=True, holdout=Evaluation(), tuning_criterion=search)
    assert result.second_evaluation is not None
    same = result.choose(tolerable_loss=result.criterion.tolerable_loss + 1e-6)
    assert same.trial.number == result.trial.number
    assert same.second_evaluation == result.second_evaluation
    assert same.holdout == result.holdout
    other = result.choose(tolerable_loss=0.2)
    assert other.trial.number != result.trial.number
    assert other.second_evaluation is None
    assert other.not_repeated == other.holdout_missing == "it was chosen from the record"


def test_a_choice_needs_something_to_choose_by(everything):
    with pytest.raises(ValueError, match="Nothing to choose by"):
        everything.choose()
    with pytest.raises(
        ValueError, match="objective 'multiply_adds' are not known; known are: latency"
    ):
        everything.choose(objective="multiply_adds")
    with pytest.raises(ValueError, match="not both"):
        everything.choose(tolerable_loss=0.1, criterion=CRITERION)
    with pytest.raises(ValueError, match="at least 0"):
        everything.choose(tolerable_loss=-1)
    with pytest.raises(ValueError, match="direction"):
        everything.choose(criterion=AccuracyCriterion(higher_is_better=False))
