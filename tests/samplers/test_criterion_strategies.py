"""Conservative, auto, mse, mse_v2 and hawq_v2: what they evaluate, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
import pytest
from spaces import STATIC
from spaces import make_space
from spaces import objective_of
from staged_search import loss_per_op
from staged_search import searched

from optuna_quant.callbacks.exit_policy import is_answer
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import ConservativeQuantSampler
from optuna_quant.samplers import HAWQV2QuantSampler
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import MSEV2QuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def answers(study: optuna.Study, space: TuningSpace) -> list[QuantConfig]:
    """The configurations that meet the criterion and are the strategy's answer."""
    return [
        space.config_from_params(trial.params)
        for trial in study.trials
        if trial.constraints[record.ACCURACY] <= 0
        and not TrialView(trial).is_baseline
        and study.sampler.is_answer(study, trial)
    ]


MIXED = [("m0", "MatMul"), ("c1", "Conv"), ("g2", "Gather"), ("c3", "Conv")]


def test_conservative_converts_type_by_type() -> None:
    space = make_space(MIXED)
    study, lines = searched(
        ConservativeQuantSampler(space, criterion=CRITERION),
        loss_per_op(m0=0.05, c1=0.01, c3=0.02, g2=0.5),
    )
    assert lines == [
        "baseline: ffff",
        "convert everything: ssss",
        "convert Conv: fsfs",
        "convert MatMul: ssfs",
    ]
    assert [config.fallback_ops for config in answers(study, space)] == [("g2",)]
    costs = study.sampler.type_costs(study)
    # Gather was judged by the first: with everything else it is what breaks the model.
    assert list(costs) == ["Conv", "MatMul"]
    assert costs["Conv"] == pytest.approx(0.03)


def test_conservative_goes_into_a_type_that_fails() -> None:
    space = make_space(4)
    study, lines = searched(
        ConservativeQuantSampler(space, criterion=CRITERION),
        loss_per_op(op0=0.3, op1=0.06, op2=0.02, op3=0.05),
    )
    assert lines == [
        "baseline: ffff",
        "convert everything: ssss",
        "convert Conv by halves: ssff",
        "convert Conv by halves: sfff",
        "convert Conv by halves: fsff",
        "convert Conv by halves: fsss",
        "convert Conv by halves: fssf",
        # Half of the ops did not fit: are there others that fit better together?
        "convert Conv op by op, one by one: ffsf",
        "convert Conv op by op, one by one: fffs",
        # op2, the least harmful, with the better one of the two others that fit alone.
        "convert Conv op by op: ffss",
        "convert Conv op by op, one by one: sfss",
        # What is left does not fit on top: op3 was seen not to.
        "convert what is left, one by one: sssf",
    ]
    assert [config.fallback_ops for config in answers(study, space)] == [("op0", "op3")]


def test_conservative_passing_on_the_way_is_no_answer() -> None:
    space = make_space(MIXED)
    sampler = ConservativeQuantSampler(space, criterion=CRITERION)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    metric = loss_per_op(m0=0.0, c1=0.0, c3=0.0, g2=0.5)
    study.optimize(objective_of(space, metric), n_trials=3)
    assert study.trials[2].constraints[record.ACCURACY] <= 0
    assert answers(study, space) == []
    study.optimize(objective_of(space, metric), n_trials=1)
    assert answers(study, space) == [space.default().with_fallback("g2")]


def test_conservative_is_done_if_everything_fits() -> None:
    space = make_space(MIXED)
    study, lines = searched(
        ConservativeQuantSampler(space, criterion=CRITERION), loss_per_op(m0=0.05)
    )
    assert lines == ["baseline: ffff", "convert everything: ssss"]
    assert answers(study, space) == [space.default()]


def test_what_idle_workers_try_is_no_answer() -> None:
    """More asks at once than the plan has work for: what they get meets, but answers nothing."""
    space = make_space(6)
    metric = loss_per_op(op0=0.3, op1=0.3)
    sampler = ConservativeQuantSampler(space, criterion=CRITERION)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective_of(space, metric), n_trials=1)
    asked = [study.ask() for _ in range(40)]
    configs = [space.suggest(trial) for trial in asked]
    stages = [TrialView(trial).claim.stage for trial in study.trials]
    assert record.SPARE_STAGE in stages
    for trial, config in list(zip(asked, configs, strict=True))[1:]:
        study.tell(trial, metric(config))
    spare = [t for t in study.trials if TrialView(t).claim.stage == record.SPARE_STAGE]
    assert any(trial.constraints[record.ACCURACY] <= 0 for trial in spare)
    assert not any(sampler.is_answer(study, trial) for trial in spare)
    assert not any(is_answer(study, trial) for trial in spare)


def test_conservative_that_can_convert_nothing_has_no_answer() -> None:
    space = make_space(3)
    study, _ = searched(
        ConservativeQuantSampler(space, criterion=CRITERION),
        loss_per_op(op0=1.0, op1=1.0, op2=1.0),
    )
    assert answers(study, space) == []


def test_conservative_lower_is_better() -> None:
    space = make_space(3)
    criterion = AccuracyCriterion(higher_is_better=False, criterion="absolute", tolerable_loss=0.1)
    metric = loss_per_op(op0=0.3, op1=0.06, op2=0.02)
    study, _ = searched(
        ConservativeQuantSampler(space, criterion=criterion),
        lambda config: 2 - metric(config),
        direction="minimize",
    )
    assert [config.fallback_ops for config in answers(study, space)] == [("op0",)]


def test_ops_that_matter_only_together() -> None:
    """op0 and op1 do no harm alone, and break the model together."""
    space = make_space(6)

    def metric(config: QuantConfig) -> float:
        both = config["op0"].is_quantized and config["op1"].is_quantized
        return 0.5 if both else 1.0

    study, _ = searched(ConservativeQuantSampler(space, criterion=CRITERION), metric)
    assert [len(config.fallback_ops) for config in answers(study, space)] == [1]


def test_auto_is_done_if_the_default_meets() -> None:
    space = make_space(4)
    sampler = AutoQuantSampler(space, criterion=CRITERION)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective_of(space, loss_per_op(op0=0.05)), n_trials=2)
    assert answers(study, space) == [space.default()]


def test_auto_tries_the_cheapest_and_then_what_it_believes_to_meet() -> None:
    space = make_space(4)
    study, lines = searched(
        AutoQuantSampler(space, criterion=CRITERION),
        loss_per_op(op0=0.3, op1=0.06, op2=0.02, op3=0.05),
    )
    stages = list(dict.fromkeys(line.partition(":")[0] for line in lines))
    assert stages == ["baseline", "cheapest to start with", "cheapest believed to meet"]
    assert lines[1] == "cheapest to start with: ssss"
    assert len({line.partition(": ")[2] for line in lines}) == len(lines)
    assert [len(config.fallback_ops) for config in answers(study, space)] == [2]


def test_auto_of_the_reference_goes_on_to_conservative_and_basic_without_repeats() -> None:
    space = make_space(4)
    study, lines = searched(
        AutoQuantSampler(space, criterion=CRITERION, compat="inc2"),
        loss_per_op(op0=0.3, op1=0.06, op2=0.02, op3=0.05),
    )
    stages = list(dict.fromkeys(line.partition(":")[0] for line in lines))
    assert stages[:3] == ["baseline", "default", "convert Conv by halves"]
    assert "instance-wise fallback" in stages
    assert len({line.partition(": ")[2] for line in lines}) == len(lines)
    assert min(len(config.fallback_ops) for config in answers(study, space)) == 2


class Sensitivity:
    """Scores ops by what they really cost, and counts how often it is asked."""

    def __init__(self, **losses: float) -> None:
        self.losses = losses
        self.asked: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        self.asked.append((config.fallback_ops, tuple(ops)))
        return {op: self.losses[op] for op in ops}


LOSSES = {"op0": 0.02, "op1": 0.3, "op2": 0.2, "op3": 0.01}


@pytest.mark.parametrize("kind", [MSEQuantSampler, HAWQV2QuantSampler])
def test_fallback_in_the_order_of_the_sensitivity(kind: type) -> None:
    space = make_space(4)
    sensitivity = Sensitivity(**LOSSES)
    study, lines = searched(
        kind(space, criterion=CRITERION, sensitivity=sensitivity), loss_per_op(**LOSSES)
    )
    assert lines[:4] == [
        "baseline: ffff",
        "default: ssss",
        "accumulated fallback: sfss",
        "accumulated fallback: sffs",
    ]
    assert sensitivity.asked == [((), ("op0", "op1", "op2", "op3"))]
    assert answers(study, space)[0].fallback_ops == ("op1", "op2")


def test_mse_scores_again_when_progress_stops() -> None:
    space = make_space(8)
    losses = {f"op{i}": 0.2 if i == 7 else 0.0 for i in range(8)}
    misled = Sensitivity(**{f"op{i}": 8.0 - i for i in range(8)})
    searched(
        MSEQuantSampler(
            space, criterion=CRITERION, sensitivity=misled, patience=2, accumulate="walk"
        ),
        loss_per_op(**losses),
    )
    # Given the two ops that brought nothing, for the others.
    assert misled.asked[1] == (("op0", "op1"), tuple(f"op{i}" for i in range(2, 8)))


def test_mse_v2_reverts_what_need_not_stay() -> None:
    space = make_space(5)
    losses = {"op0": 0.0, "op1": 0.3, "op2": 0.0, "op3": 0.04, "op4": 0.0}
    misled = Sensitivity(op0=9.0, op1=5.0, op2=8.0, op3=7.0, op4=1.0)
    study, lines = searched(
        MSEV2QuantSampler(space, criterion=CRITERION, sensitivity=misled, accumulate="walk"),
        loss_per_op(**losses),
    )
    assert lines == [
        "baseline: fffff",
        "default: sssss",
        "fallback of the most sensitive: fssss",
        "fallback of the most sensitive: fsfss",
        "fallback of the most sensitive: fsffs",
        "fallback of the most sensitive: ffffs",
        "revert the least sensitive: sfsss",
    ]
    assert [config.fallback_ops for config in answers(study, space)] == [("op1",)]
    # It was asked again at each step, with what was in fallback.
    assert [asked[0] for asked in misled.asked] == [
        (),
        ("op0",),
        ("op0", "op2"),
        ("op0", "op2", "op3"),
    ]


def test_mse_v2_confidence_batches() -> None:
    class Batched(Sensitivity):
        batches = 0

        def with_batches(self, batches: int) -> Batched:
            other = Batched(**self.losses)
            other.batches = batches
            made.append(other)
            return other

    made: list[Batched] = []
    searched(
        MSEV2QuantSampler(
            make_space(4),
            criterion=CRITERION,
            sensitivity=Batched(**LOSSES),
            confidence_batches=7,
        ),
        loss_per_op(**LOSSES),
    )
    assert [(s.batches, bool(s.asked)) for s in made] == [(7, True)]
    with pytest.raises(ValueError, match="confidence_batches must be at least 1, but got 0"):
        MSEV2QuantSampler(
            make_space(4),
            criterion=CRITERION,
            sensitivity=Batched(**LOSSES),
            confidence_batches=0,
        )
    with pytest.raises(ValueError, match="confidence_batches=7 needs a sensitivity"):
        MSEV2QuantSampler(
            make_space(4),
            criterion=CRITERION,
            sensitivity=Sensitivity(**LOSSES),
            confidence_batches=7,
        )


def test_scores_are_computed_once_per_study() -> None:
    space = make_space(4)
    first, second = Sensitivity(**LOSSES), Sensitivity(**LOSSES)
    study = optuna.create_study(
        direction="maximize",
        sampler=MSEQuantSampler(space, criterion=CRITERION, sensitivity=first),
    )
    study.optimize(objective_of(space, loss_per_op(**LOSSES)), n_trials=3)
    study.sampler = MSEQuantSampler(space, criterion=CRITERION, sensitivity=second)
    study.optimize(objective_of(space, loss_per_op(**LOSSES)), n_trials=1)
    assert len(first.asked) == 1
    assert second.asked == []


def test_looking_at_a_study_computes_no_scores() -> None:
    space = make_space(4)
    sensitivity = Sensitivity(**LOSSES)
    sampler = MSEQuantSampler(space, criterion=CRITERION, sensitivity=sensitivity)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective_of(space, loss_per_op(**LOSSES)), n_trials=2)
    assert not sampler.is_exhausted(study)
    assert sensitivity.asked == []


@pytest.mark.parametrize("score", [None, float("nan"), "high", True])
def test_a_score_that_is_no_number_is_an_error(score: object) -> None:
    space = make_space(2)
    sampler = MSEQuantSampler(
        space, criterion=CRITERION, sensitivity=lambda config, ops: {"op0": 1.0, "op1": score}
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.raises(ValueError, match="must give a number for each op, but gave .* for 'op1'"):
        study.optimize(objective_of(space, loss_per_op(op0=0.5, op1=0.5)), n_trials=3)


def test_no_sensitivity_is_an_error_that_says_where_to_get_one() -> None:
    sampler = MSEQuantSampler(make_space(2), criterion=CRITERION, sensitivity=None)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.raises(TypeError, match=r"MSEQuantSampler needs sensitivity=.*mse_sensitivity"):
        study.optimize(objective_of(sampler.space, loss_per_op(op0=0.5, op1=0.5)), n_trials=3)


@pytest.mark.parametrize("kind", [ConservativeQuantSampler, AutoQuantSampler])
def test_no_criterion_is_an_error(kind: type) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} needs criterion="):
        kind(make_space(2), criterion=None)


def test_basic_ranks_by_the_other_view_when_far_off() -> None:
    """All ops together ruin the model; each alone shows what it costs."""
    from optuna_quant.samplers import BasicQuantSampler

    space = make_space(8)
    harm = {f"op{i}": 0.2 if i in (2, 5) else 0.001 for i in range(8)}

    def metric(config: QuantConfig) -> float:
        bad = sum(config[f"op{i}"].is_quantized for i in (2, 5))
        return 0.1 if bad == 2 else loss_per_op(**harm)(config)

    sampler = BasicQuantSampler(space, criterion=CRITERION)
    study, lines = searched(sampler, metric)
    del lines
    assert min(len(config.fallback_ops) for config in answers(study, space)) == 2


def test_basic_finds_ops_that_matter_only_together() -> None:
    """Taking back either of two ops changes nothing; taking back both is all it takes."""
    from optuna_quant.samplers import BasicQuantSampler

    space = make_space([(f"op{i}", "Conv") for i in range(10)], (STATIC, FP32))

    def metric(config: QuantConfig) -> float:
        return 0.2 if any(config[op].is_quantized for op in ("op3", "op8")) else 1.0

    study, lines = searched(BasicQuantSampler(space, criterion=CRITERION), metric)
    assert any(line.startswith("instance-wise quantization") for line in lines)
    assert ("op3", "op8") in [config.fallback_ops for config in answers(study, space)]


def test_a_search_that_goes_on_quantizes_again_what_need_not_stay() -> None:
    """Basic meets the criterion with an op too many; going on, it finds out."""
    from optuna_quant.samplers import BasicQuantSampler

    space = make_space(5)
    # Alone op1 and op2 help most; with op3 in fallback neither is needed.
    metric_of = {("op3",): 0.70, ("op1",): 0.80, ("op2",): 0.75}

    def metric(config: QuantConfig) -> float:
        fallback = config.fallback_ops
        if len(fallback) == 5:
            return 1.0
        if "op3" in fallback and len(fallback) > 1:
            return 0.95
        return metric_of.get(fallback, 0.6 + 0.01 * len(fallback))

    study, lines = searched(BasicQuantSampler(space, criterion=CRITERION), metric)
    assert any(line.startswith("quantized again") for line in lines)
    assert min(len(config.fallback_ops) for config in answers(study, space)) == 2
