"""What the plots show, apart from how they draw it."""

from __future__ import annotations

import datetime
import logging

import optuna
import plotted_studies
from plotted_studies import BITS_4
from plotted_studies import FP32_BYTES
from plotted_studies import HALF
from plotted_studies import START
from plotted_studies import GraphBackend
import pytest
from spaces import STATIC

from optuna_quant import AccuracyCriterion
from optuna_quant import SensitivityTable
from optuna_quant.study import record
from optuna_quant.tuning.sensitivities.table import OptionSensitivity
from optuna_quant.visualization._confidence_sequence import _get_confidence_sequence_info
from optuna_quant.visualization._confidence_sequence import y_range
from optuna_quant.visualization._cost_prediction import _get_cost_prediction_info
from optuna_quant.visualization._facts import Judged
from optuna_quant.visualization._model_graph import _get_model_graph_info
from optuna_quant.visualization._op_sensitivities import _get_op_sensitivities_info
from optuna_quant.visualization._op_sensitivities import lengths_of
from optuna_quant.visualization._op_sensitivities import rest_texts
from optuna_quant.visualization._options import BITS_4 as FOUR
from optuna_quant.visualization._options import FLOAT16
from optuna_quant.visualization._options import FP32
from optuna_quant.visualization._options import STATIC_8
from optuna_quant.visualization._precisions import _get_precisions_info
from optuna_quant.visualization._timeline import OTHER_STAGES
from optuna_quant.visualization._timeline import _get_timeline_info
from optuna_quant.visualization._timeline import by_stage
from optuna_quant.visualization._tradeoff import _get_tradeoff_info
from optuna_quant.visualization._tradeoff import at_edge
from optuna_quant.visualization._tradeoff import title_of


def test_op_sensitivities(study: optuna.Study) -> None:
    info = _get_op_sensitivities_info(study)
    assert [(each.op, each.sensitivity) for each in info.ops] == [
        ("op2", 0.03),
        ("op1", 0.02),
        ("op0", 0.01),
    ]
    assert [each.share for each in info.ops] == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert [each.option for each in info.ops] == [STATIC] * 3
    assert [each.gain for each in info.ops] == pytest.approx([0.75e-3] * 3)
    assert info.rest is None
    assert info.gain is not None
    assert info.gain.title == "Time saved by it while all others are quantized (µs)"
    assert lengths_of(info)[1] == pytest.approx([750.0] * 3)


def test_the_rest_of_the_ops_is_summed(study: optuna.Study) -> None:
    info = _get_op_sensitivities_info(study, n_ops=1)
    assert [each.op for each in info.ops] == ["op2"]
    assert info.rest is not None
    assert info.rest.ops == 2
    assert info.rest.sensitivity == pytest.approx(0.03)
    assert info.rest.share == pytest.approx(1 / 2)
    assert info.rest.gain == pytest.approx(1.5e-3)
    assert rest_texts(info) == ("0.03", "1.5 ms")
    # The bar of the rest is cut where it would squeeze the others.
    assert lengths_of(info)[1] == pytest.approx([750.0, 1.15 * 750.0])


def test_sensitivities_can_be_given(study: optuna.Study) -> None:
    rows = (
        OptionSensitivity("op0", option=BITS_4.label, score=3.0),
        OptionSensitivity("op1", option=STATIC.label, score=1.0),
    )
    table = SensitivityTable("model", "best", rows)
    info = _get_op_sensitivities_info(study, sensitivities=table)
    assert [(e.op, e.option, e.share) for e in info.ops] == [
        ("op0", BITS_4, 0.75),
        ("op1", STATIC, 0.25),
    ]
    other = SensitivityTable(
        "model", "best", (OptionSensitivity("x", option=STATIC.label, score=1.0),)
    )
    with pytest.raises(ValueError, match="none of the ops .* has a score"):
        _get_op_sensitivities_info(study, sensitivities=other)


def test_a_study_without_sensitivities_says_how_to_get_some() -> None:
    study, space = plotted_studies.hand_made()
    plotted_studies.add(study, space, space.default(), metric=0.8)
    with pytest.raises(ValueError, match=r"holds no sensitivities.*optuna_quant\.sensitivity\(\)"):
        _get_op_sensitivities_info(study)


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_bad_number_of_ops(study: optuna.Study, number: object) -> None:
    with pytest.raises(ValueError, match="n_ops must be a positive integer, but got"):
        _get_op_sensitivities_info(study, n_ops=number)  # type: ignore[arg-type]


OUTCOMES = [
    Judged.FP32,
    Judged.PARTIAL_MISSED,
    Judged.MET,
    Judged.MISSED,
    Judged.PARTIAL,
]


def test_precisions(study: optuna.Study) -> None:
    info = _get_precisions_info(study)
    assert info.ops == ["op0", "op1", "op2"]
    assert info.trials == [0, 1, 2, 3, 4]
    assert info.outcomes == OUTCOMES
    assert info.precisions == [
        [FP32, STATIC_8, FP32, FLOAT16, STATIC_8],
        [FP32, STATIC_8, STATIC_8, FOUR, STATIC_8],
        [FP32, STATIC_8, STATIC_8, STATIC_8, FP32],
    ]
    assert info.labels[0] == ["fp32", STATIC.label, "fp32", HALF.label, STATIC.label]


def test_ops_are_in_the_order_of_the_model() -> None:
    study = plotted_studies.searched(["z", "b", "a"])
    assert _get_precisions_info(study).ops == ["z", "b", "a"]


def test_another_criterion(study: optuna.Study) -> None:
    other = AccuracyCriterion(tolerable_loss=0.1)
    assert _get_precisions_info(study, criterion=other).outcomes[3] is Judged.MET
    assert _get_timeline_info(study, criterion=other).bars[3].outcome is Judged.MET
    info = _get_tradeoff_info(study, criterion=other)
    assert info.threshold == pytest.approx(0.81)
    assert [p.trial for p in info.points if p.outcome is Judged.MET] == [2, 3]
    seen = _get_confidence_sequence_info(study, criterion=other, trial=2)
    assert seen.threshold == pytest.approx(0.81)


def test_timeline(study: optuna.Study) -> None:
    info = _get_timeline_info(study)
    assert info.workers == ["machine 1", "machine 2"]
    assert [(bar.trial, bar.lane, bar.stage) for bar in info.bars] == [
        (0, 0, "baseline"),
        (1, 0, "default"),
        (2, 0, "stage"),
        (3, 1, "stage"),
        (4, 0, "stage"),
    ]
    seconds = [(bar.start - START, bar.end - START) for bar in info.bars]
    assert [(a.total_seconds(), b.total_seconds()) for a, b in seconds] == [
        (0.0, 1.0),
        (1.0, 2.0),
        (2.0, 5.0),
        (2.5, 4.0),
        (5.0, 6.0),
    ]
    assert [bar.outcome for bar in info.bars] == OUTCOMES
    assert list(info.colors) == ["baseline", "default", "stage"]
    assert len(set(info.colors.values())) == 3


def test_a_running_trial_ends_at_the_last_time_of_the_study() -> None:
    study, space = plotted_studies.hand_made()
    plotted_studies.add(study, space, space.fp32(), metric=0.9, seconds=(0, 7))
    plotted_studies.add(
        study,
        space,
        space.default(),
        metric=None,
        seconds=(2, None),
        state=optuna.trial.TrialState.RUNNING,
    )
    bar = _get_timeline_info(study).bars[1]
    assert bar.is_running
    assert bar.end - START == datetime.timedelta(seconds=7)
    assert bar.outcome is Judged.OPEN


def test_rare_stages_share_a_colour() -> None:
    study, space = plotted_studies.hand_made()
    for number in range(12):
        for _ in range(1 + (number < 7)):
            plotted_studies.add(study, space, space.default(), metric=0.8, stage=f"s{number}")
    info = _get_timeline_info(study)
    assert list(info.colors) == [*(f"s{number}" for number in range(7)), OTHER_STAGES]
    assert [len(bars) for bars in by_stage(info).values()] == [2] * 7 + [5]


def test_tradeoff(study: optuna.Study) -> None:
    info = _get_tradeoff_info(study)
    assert info.metric == "accuracy"
    assert info.cost.title == "Size of the model (kB)"
    assert info.threshold == pytest.approx(0.891)
    found = [(p.trial, p.cost, p.metric, p.outcome, p.samples) for p in info.points]
    assert found == [
        (2, 1900.0, 0.9, Judged.MET, None),
        (3, 1500.0, 0.85, Judged.MISSED, None),
        (0, float(FP32_BYTES), 0.9, Judged.FP32, None),
        (1, 1000.0, 0.6, Judged.PARTIAL_MISSED, (50, 100)),
        (4, 1800.0, 0.89, Judged.PARTIAL, (50, 100)),
    ]
    # FP32 is as good as trial 2, and larger.
    assert info.front == [(1500.0, 0.85), (1900.0, 0.9)]
    assert title_of(info) == "Accuracy against size of the model: 5 models"


def test_points_that_miss_by_far_are_at_the_edge(study: optuna.Study) -> None:
    info = _get_tradeoff_info(study)
    inside, beyond = at_edge(info.points, info)
    assert [point.trial for point in inside] == [2, 3, 0, 4]
    assert [(point.trial, point.metric) for point in beyond] == [(1, pytest.approx(0.783))]


def test_another_objective(study: optuna.Study) -> None:
    info = _get_tradeoff_info(study, objective="ops")
    assert [point.cost for point in info.points] == [1.0, 1.0, 3.0, 0.0, 1.0]
    assert info.cost.title == "Ops in fallback"
    with pytest.raises(ValueError, match="are not known; known are: ops, size"):
        _get_tradeoff_info(study, objective="bit_operations")


def test_the_objective_of_the_study_is_a_function() -> None:
    study = plotted_studies.searched()
    study.set_user_attr(record.OBJECTIVE, "my_cost")
    with pytest.raises(ValueError, match=r"function \('my_cost'\).*objective='size'"):
        _get_tradeoff_info(study)
    assert _get_tradeoff_info(study, objective="size").points


def test_confidence_sequence(study: optuna.Study) -> None:
    info = _get_confidence_sequence_info(study)
    assert info.trial == 2  # The answer.
    assert (info.metric, info.of) == ("accuracy", 100)
    assert (info.threshold, info.baseline) == pytest.approx((0.891, 0.9))
    assert info.error_probability == 1e-3
    last = info.seen[-1]
    assert last.samples == 100
    assert (last.estimate, last.low, last.high) == pytest.approx((0.9, 0.9, 0.9))
    for each in info.seen:
        assert each.low <= each.estimate <= each.high


def test_confidence_sequence_of_a_trial_that_failed_early(study: optuna.Study) -> None:
    info = _get_confidence_sequence_info(study, trial=1)
    last = info.seen[-1]
    assert last.samples == 50
    # Of 50 samples at least the first 20 are wrong, so at most 80 can be right.
    assert last.low <= last.estimate <= last.high <= 0.8
    assert last.high < info.threshold
    low, high = y_range(info)
    assert low <= info.threshold <= high


def test_bounds_are_those_of_plain_counting() -> None:
    """With the exact method a bound is what the rest of the samples can still bring."""
    study, space = plotted_studies.hand_made()
    population = plotted_studies.keep_population(study, method="exact")
    plotted_studies.add_baseline(study, space)
    scores = population.baseline_in_order.copy()
    scores[:10] = 0.0
    plotted_studies.add(study, space, space.default(), metric=0.8, scores=scores)
    info = _get_confidence_sequence_info(study)
    for each in info.seen:
        right = scores[: each.samples].sum()
        assert each.low == pytest.approx(right / 100)
        assert each.high == pytest.approx((right + 100 - each.samples) / 100)


def test_a_trial_that_reused_a_result_has_its_samples() -> None:
    study, space = plotted_studies.hand_made()
    population = plotted_studies.keep_population(study)
    plotted_studies.add_baseline(study, space)
    scores = population.baseline_in_order
    first = plotted_studies.add(study, space, space.default(), metric=0.9, scores=scores)
    second = plotted_studies.add(study, space, space.default(), metric=0.9, reused_from=first)
    one, other = (_get_confidence_sequence_info(study, trial=n) for n in (first, second))
    assert other.seen == one.seen


@pytest.mark.parametrize("trial", [5, -1, True, "best"])
def test_no_such_trial(study: optuna.Study, trial: object) -> None:
    with pytest.raises(ValueError, match=r"trial must be the number .* has trials 0 to 4"):
        _get_confidence_sequence_info(study, trial=trial)  # type: ignore[arg-type]


def test_without_scores_of_samples_there_is_no_interval(study: optuna.Study) -> None:
    with pytest.raises(ValueError, match=r"trial 3 .* has no scores of single samples.*data="):
        _get_confidence_sequence_info(study, trial=3)
    other, space = plotted_studies.hand_made()
    plotted_studies.add(other, space, space.default(), metric=0.9)
    with pytest.raises(ValueError, match="keeps no scores of single samples"):
        _get_confidence_sequence_info(other)


EMPTY = {
    "op_sensitivities": _get_op_sensitivities_info,
    "precisions": _get_precisions_info,
    "tradeoff": _get_tradeoff_info,
    "confidence_sequence": _get_confidence_sequence_info,
    "cost_prediction": _get_cost_prediction_info,
    "model_graph": lambda study: _get_model_graph_info(study, GraphBackend(["op0"])),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("trials", ["none", "only FP32"])
def test_without_a_quantized_model_there_is_a_warning(
    name: str, trials: str, caplog: pytest.LogCaptureFixture
) -> None:
    study, space = plotted_studies.hand_made()
    if trials == "only FP32":
        plotted_studies.add_baseline(study, space)
    with caplog.at_level(logging.WARNING):
        EMPTY[name](study)  # type: ignore[operator]
    assert "no trial of a quantized model" in caplog.text


@pytest.mark.parametrize("name", [*EMPTY, "timeline"])
def test_a_study_of_another_search_is_an_error(name: str) -> None:
    study = optuna.create_study(study_name="theirs")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    draw = {**EMPTY, "timeline": _get_timeline_info}[name]
    with pytest.raises(ValueError, match=r"'theirs' has no trial of optuna_quant: none of its 2"):
        draw(study)  # type: ignore[operator]


def test_an_empty_study_has_an_empty_timeline(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert _get_timeline_info(optuna.create_study()).bars == []
    assert "no trial that has started" in caplog.text
