"""Strategies that find which ops need FP32, in spaces with cheaper options for these."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial

import optuna
import pytest
from spaces import STATIC
from spaces import STATIC_16
from spaces import STATIC_TENSOR
from spaces import make_space
from spaces import objective_of
from staged_search import run

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import ConservativeQuantSampler
from optuna_quant.samplers import HAWQV2QuantSampler
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import MSEV2QuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._plans.cheaper_fallback import cheaper_fallback
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
BF16, FP16 = OpConfig("bf16"), OpConfig("fp16")
FLOATS = (STATIC, BF16, FP16, FP32)
WIDE = (STATIC, STATIC_16, BF16, FP16, FP32)
WRONG = ("op0", STATIC_16)

# What each op loses in INT8: two of six lose too much.
LOSSES = {"op0": 0.01, "op1": 0.3, "op2": 0.0, "op3": 0.02, "op4": 0.4, "op5": 0.0}
RANKED = {"op0": 2.0, "op1": 5.0, "op2": 1.0, "op3": 3.0, "op4": 4.0, "op5": 0.0}

Bad = Mapping[OpConfig, Sequence[str]]


def metric_of(bad: Bad) -> Callable[[QuantConfig], float]:
    """A metric that also loses 0.3 for each of these ops in one of these options."""

    def metric(config: QuantConfig) -> float:
        lost = sum(loss for op, loss in LOSSES.items() if config[op] == STATIC)
        return 1.0 - lost - 0.3 * sum(config[op] == o for o, ops in bad.items() for op in ops)

    return metric


def sampler_of(kind: type, space: TuningSpace, **kwargs: object) -> QuantSampler:
    if kind is not ConservativeQuantSampler:
        kwargs["sensitivity"] = lambda config, ops: {op: RANKED[op] for op in ops}
        kwargs["max_op_type_trials"] = 0
    return kind(space, **{"criterion": CRITERION, **kwargs})


def searched(kind: type, options: Sequence[OpConfig], bad: Bad, **kwargs: object) -> list[str]:
    space = make_space(6, options)
    return run(space, metric_of(bad), kind=partial(sampler_of, kind), **kwargs)


# What they evaluate with FP32 alone.
FIRST = {
    MSEQuantSampler: [
        "baseline: ffffff",
        "default: ssssss",
        "accumulated fallback: sfssss",
        "accumulated fallback: sfssfs",
        "quantized again: ssssfs",
    ],
    MSEV2QuantSampler: [
        "baseline: ffffff",
        "default: ssssss",
        "fallback of the most sensitive: sfssss",
        "fallback of the most sensitive: sfssfs",
        "revert the least sensitive: ssssfs",
    ],
    ConservativeQuantSampler: [
        "baseline: ffffff",
        "convert everything: ssssss",
        "convert Conv by halves: sssfff",
        "convert Conv by halves: ffsfff",
        "convert Conv by halves: ffssss",
        "convert Conv by halves: ffsssf",
        "convert Conv by halves: ffsffs",
        "convert Conv by halves: sfsffs",
        "convert Conv by halves: sfssfs",
        "convert Conv op by op, one by one: sfffff",
        "convert Conv op by op, one by one: fsffff",
        "convert Conv op by op, one by one: fffsff",
        "convert Conv op by op, one by one: ffffsf",
        "convert Conv op by op, one by one: fffffs",
        "convert Conv op by op, one by one: ssssfs",
        "convert Conv op by op, one by one: sfssss",
    ],
}
FIRST[HAWQV2QuantSampler] = FIRST[MSEQuantSampler]
STRATEGIES = pytest.mark.parametrize("kind", list(FIRST))


@STRATEGIES
def test_nothing_is_added_where_there_is_fp32_alone(kind: type) -> None:
    assert searched(kind, (STATIC, FP32), {}) == FIRST[kind]


@STRATEGIES
@pytest.mark.parametrize(
    ("options", "bad", "more"),
    [
        (FLOATS, {}, ["bf16 instead of fp32: sbssbs"]),
        ((STATIC, FP16, FP32), {}, ["fp16 instead of fp32: shsshs"]),
        # An op that loses too much in one type goes to the next.
        (
            FLOATS,
            {BF16: ["op4"]},
            [
                "bf16 instead of fp32: sbssbs",
                "bf16 instead of fp32: sbssfs",
                "fp16 instead of fp32: sbsshs",
            ],
        ),
        # ... and at last stays in FP32.
        (
            FLOATS,
            {BF16: ["op1", "op4"], FP16: ["op4"]},
            [
                "bf16 instead of fp32: sbssbs",
                "bf16 instead of fp32: sbssfs",
                "bf16 instead of fp32: sfssbs",
                "fp16 instead of fp32: shsshs",
                "fp16 instead of fp32: shssfs",
            ],
        ),
        # Wide activations are cheaper than floats of 16 bits.
        (WIDE, {}, ["16-bit activations: swssws"]),
        (
            WIDE,
            {STATIC_16: ["op1"]},
            [
                "16-bit activations: swssws",
                "16-bit activations: swssfs",
                "16-bit activations: sfssws",
                "bf16 instead of fp32: sbssws",
            ],
        ),
    ],
)
def test_what_is_in_fp32_gets_the_cheapest_of_16_bits_that_holds(
    kind: type, options: Sequence[OpConfig], bad: Bad, more: Sequence[str]
) -> None:
    assert searched(kind, options, bad) == [*FIRST[kind], *more]


HALVES = [
    "baseline: ffffff",
    "default: ssssss",
    "fallback by halves: sssfff",
    "fallback by halves: ffsfff",
    "fallback by halves: ffssss",
    "fallback by halves: ffsssf",
    "fallback by halves: ffsffs",
    "fallback by halves: sfsffs",
    "fallback by halves: sfssfs",
]


@pytest.mark.parametrize(
    ("options", "bad", "more"),
    [
        ((STATIC, FP32), {}, []),
        ((STATIC, STATIC_16, FP32), {}, ["16-bit activations: swssws"]),
        (
            (STATIC, STATIC_16, FP32),
            {STATIC_16: ["op1"]},
            [
                "16-bit activations: swssws",
                "16-bit activations: swssfs",
                "16-bit activations: sfssws",
            ],
        ),
    ],
)
def test_basic_tries_wide_activations_before_its_answer(
    options: Sequence[OpConfig], bad: Bad, more: Sequence[str]
) -> None:
    lines = run(make_space(6, options), metric_of(bad), criterion=CRITERION, max_op_type_trials=0)
    # Then it goes on with each op in FP32 by itself.
    assert lines[: len(HALVES) + len(more)] == [*HALVES, *more]
    assert lines[len(HALVES) + len(more)] == "instance-wise fallback: sssssf"


def test_basic_mixes_types_where_none_is_enough_for_all() -> None:
    space, bad = make_space(6, FLOATS), {BF16: ["op4"], FP16: ["op1"]}
    lines = run(space, metric_of(bad), criterion=CRITERION, max_op_type_trials=0)
    assert lines[-2:] == ["bf16 instead of fp32: sbssfs", "fp16 instead of fp32: sbsshs"]


@STRATEGIES
def test_the_way_there_is_no_answer(kind: type) -> None:
    """The one with FP32 meets the criterion first, and a search goes on from it."""
    space = make_space(6, FLOATS)
    sampler = sampler_of(kind, space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(objective_of(space, metric_of({BF16: ["op4"]})), n_trials=1)
    met = [t for t in study.trials if t.constraints.get(record.ACCURACY, 1.0) <= 0]
    found = [t for t in met if t.number and sampler.is_answer(study, t)]
    assert len(met) > 2
    assert [space.config_from_params(t.params) for t in found] == [
        space.default().with_ops({"op1": BF16, "op4": FP16})
    ]


@pytest.mark.parametrize("criterion", [CRITERION, None])
def test_a_walk_takes_one_mode_after_the_other(criterion: AccuracyCriterion | None) -> None:
    lines = searched(
        MSEQuantSampler,
        FLOATS,
        {BF16: ["op4"]},
        criterion=criterion,
        accumulate="walk",
        patience=1,
    )
    stages = list(dict.fromkeys(line.partition(":")[0] for line in lines))
    assert stages[:4] == [
        "baseline",
        "default",
        "accumulated fallback (bf16)",
        "accumulated fallback (fp16)",
    ]
    # With a criterion it ends where that is met; without it nothing is left out.
    assert lines[-1].endswith("(fp16): shsshs") is (criterion is not None)
    assert ("accumulated fallback" in stages) is (criterion is None)


def test_floats_alone_are_left_as_they_are() -> None:
    space = make_space(3, FLOATS)
    with pytest.raises(StopIteration) as stopped:
        next(cheaper_fallback(space, space.fp32(), space.default()))
    assert stopped.value.value == space.fp32()


def test_an_op_is_quantized_with_wide_activations_alone() -> None:
    """No op holds in INT8; one does with activations of 16 bits, and that is an answer."""
    space = make_space(2, (STATIC, STATIC_16, FP32))

    def metric(config: QuantConfig) -> float:
        return 1.0 - 0.5 * sum(o == STATIC or (op, o) == WRONG for op, o in config.ops.items())

    lines = run(space, metric, kind=ConservativeQuantSampler, criterion=CRITERION)
    assert lines[-3:] == [
        "16-bit activations: ww",
        "16-bit activations: wf",
        "16-bit activations: fw",
    ]


def test_the_weights_are_those_of_the_base() -> None:
    per_tensor = OpConfig("static", STATIC_16.activation, STATIC_TENSOR.weight)
    space = make_space(1, (STATIC, STATIC_TENSOR, STATIC_16, per_tensor, FP32))
    for base, wide in ((STATIC, STATIC_16), (STATIC_TENSOR, per_tensor)):
        stage = next(cheaper_fallback(space, space.fp32(), QuantConfig({"op0": base})))
        assert [config["op0"] for config in stage.configs] == [wide]


def test_bits_that_were_not_enough_are_not_tried_again() -> None:
    space = make_space(1, (STATIC_16, FP32))
    with pytest.raises(StopIteration):
        next(cheaper_fallback(space, space.fp32(), space.default()))


def test_the_number_of_tests_is_limited() -> None:
    """Of many ops that all lose too much in both types no more are tried than there are ops."""
    space = make_space(40, (STATIC, BF16, FP32))
    config = space.fp32().with_ops({"op0": STATIC})
    plan, tried = cheaper_fallback(space, config, space.default()), 0
    request = next(plan)
    with pytest.raises(StopIteration) as stopped:
        while True:
            tried += 1
            request = plan.send([Evaluation(c, 0.0, met=False) for c in request.configs])
    assert tried == 39
    assert stopped.value.value == config
