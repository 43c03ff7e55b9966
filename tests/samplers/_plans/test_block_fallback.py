"""Blocks in the basic strategy: the exact order of what is evaluated, and which studies fit."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from spaces import STATIC
from spaces import make_space
from spaces import objective_of
from staged_search import loss_per_op
from staged_search import run

from optuna_quant import AccuracyCriterion
from optuna_quant import _optuna
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.best import Best
from optuna_quant.samplers._plans.block_fallback import BlockFallback
from optuna_quant.samplers._plans.comparisons import Comparisons
from optuna_quant.space.blocks import Block
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.space import TuningSpace


SPACE = make_space([(name, "Conv") for name in "abcdef"])
BLOCKS = [Block("b0", "f", ("a", "b")), Block("b1", "f", ("c", "d")), Block("b2", "g", ("e", "f"))]
METRIC = loss_per_op(a=0.2, b=0.01, c=0.05, d=0.02, e=0.01)
SINGLE_OPS = [
    "instance-wise fallback: sssssf",
    "instance-wise fallback: ssssfs",
    "instance-wise fallback: sssfss",
    "instance-wise fallback: ssfsss",
    "instance-wise fallback: sfssss",
    "instance-wise fallback: fsssss",
]
# The two that help most are known, from the block that holds c and d and from the first op.
ACCUMULATED = [
    "accumulated fallback: fsfsss",
    "accumulated fallback: fsffss",
    "accumulated fallback: fsfffs",
    "accumulated fallback: fffffs",
]


def without_halves(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("fallback by halves")]


def test_blocks_then_single_ops_from_where_the_blocks_began() -> None:
    """The blocks by what each gained; the best of them all is nearly FP32, and no start."""
    assert run(SPACE, METRIC, blocks=BLOCKS) == [
        "baseline: ffffff",
        "default: ssssss",
        "block-wise fallback: ssssff",
        "block-wise fallback: ssffss",
        "block-wise fallback: ffssss",
        "accumulated blocks: ffffss",
        *SINGLE_OPS,
        *ACCUMULATED,
    ]


def test_inc2_puts_blocks_together_from_the_last_to_the_first() -> None:
    assert run(SPACE, METRIC, blocks=BLOCKS, compat="inc2") == [
        "baseline: ffffff",
        "default: ssssss",
        "accumulated blocks: ssssff",
        "accumulated blocks: ssffff",
        *SINGLE_OPS,
        *ACCUMULATED,
    ]


def test_blocks_that_are_enough_are_quantized_again() -> None:
    """Until the criterion is met; what they hold and need not stay is taken back by halves."""
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.04)
    order = without_halves(run(SPACE, METRIC, blocks=BLOCKS, criterion=criterion))
    assert order[2:] == [
        "block-wise fallback: ssssff",
        "block-wise fallback: ssffss",
        "block-wise fallback: ffssss",
        "accumulated blocks: ffffss",
        "quantized again: sfffss",
        "quantized again: fsffss",
        "quantized again: fsssss",
        "quantized again: fssfss",
        *SINGLE_OPS[:5],  # The last one is known, and so is the answer: fsfsss.
        "accumulated fallback: fsfffs",
    ]


@pytest.mark.parametrize("tolerance", [0.0, 0.04, 0.1])
def test_a_search_by_blocks_alone_has_an_answer(tolerance: float) -> None:
    """Neither by halves nor op by op: it is met, and quantizing any op more breaks it."""
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=tolerance)
    blocks = BlockFallback(
        BLOCKS, Comparisons(races=False), 4, knows_criterion=True, is_inc2=False
    )

    class BlocksAlone(StagedQuantSampler):
        def plan(self, space: TuningSpace) -> Plan:
            best = Best()
            best.see((yield Stage("default", [space.default()])))
            yield from blocks.stages(space, best, "fp32")

    sampler = BlocksAlone(SPACE, criterion=criterion)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(objective_of(SPACE, METRIC), n_trials=1)
    answer = next(
        t for t in study.trials if sampler.is_answer(study, t) and t.value >= 1 - tolerance
    )
    config = SPACE.config_from_params(answer.params)
    for op in config.fallback_ops:
        assert METRIC(config.with_ops({op: STATIC})) < 1 - tolerance


def test_a_mode_has_its_own_stages() -> None:
    bf16 = make_space([(name, "Conv") for name in "abc"], (STATIC, OpConfig("bf16"), FP32))
    order = run(bf16, loss_per_op(a=0.2, b=0.1, c=0.05), blocks=[Block("b0", "f", ("a", "b"))])
    assert [line for line in order if "block" in line] == [
        "block-wise fallback (bf16): bbs",
        "block-wise fallback: ffs",
    ]


def test_ops_of_blocks_that_the_space_lacks_are_left_out() -> None:
    space = make_space([(name, "Conv") for name in "abc"])
    blocks = [Block("b0", "f", ("a", "elsewhere")), Block("b1", "f", ("nowhere", "other"))]
    found = run(space, loss_per_op(a=0.2, b=0.1, c=0.05), blocks=blocks)
    assert [line for line in found if "block" in line] == ["block-wise fallback: fss"]


def test_groups_fall_back_as_a_whole() -> None:
    tied = SPACE.group(first=["a", "c"])
    order = run(tied, METRIC, blocks=BLOCKS[:1])
    # The group stands first: the letters are those of a, c, b, d, e and f.
    assert [line for line in order if "block" in line] == ["block-wise fallback: fffsss"]


@pytest.mark.parametrize("blocks", [["b0"], True, [("a", "b")]])
def test_other_things_than_blocks_are_refused(blocks: Any) -> None:
    with pytest.raises(ValueError, match="blocks must be a list of blocks"):
        BasicQuantSampler(SPACE, blocks=blocks)


def test_strategies_that_look_at_single_ops_refuse_blocks() -> None:
    with pytest.raises(ValueError, match="looks at no blocks; leave them out"):
        MSEQuantSampler(SPACE, sensitivity=lambda config, ops: {}, blocks=BLOCKS)


# The study keeps the blocks.


def begin(study: optuna.Study, sampler: optuna.samplers.BaseSampler) -> None:
    study.sampler = sampler
    study.optimize(objective_of(SPACE, METRIC), n_trials=1)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ((), "it has 3, and there are none here"),
        (BLOCKS[:2], "it has 3, and there are 2 here"),
        (
            [*BLOCKS[:2], Block("b2", "g", ("f",))],
            r"number 2 has the ops \['e', 'f'\] there and \['f'\] here",
        ),
    ],
)
def test_other_blocks_are_not_mixed_in(others: Any, message: str) -> None:
    study = optuna.create_study(study_name="mine", direction="maximize")
    begin(study, BasicQuantSampler(SPACE, blocks=BLOCKS))
    renamed = [Block(f"x{i}", "x", block.ops) for i, block in enumerate(BLOCKS)]
    begin(study, BasicQuantSampler(SPACE, blocks=renamed))
    with pytest.raises(ValueError, match=f"'mine' was started with other blocks: {message}"):
        begin(study, BasicQuantSampler(SPACE, blocks=others))


def test_a_study_without_blocks_keeps_nothing_and_goes_on_with_some() -> None:
    study = optuna.create_study(direction="maximize")
    begin(study, BasicQuantSampler(SPACE))
    assert not any("blocks" in name for name in _optuna.study_system_attrs(study))
    begin(study, BasicQuantSampler(SPACE, blocks=BLOCKS))


def test_the_reference_auto_keeps_them_too() -> None:
    criterion = AccuracyCriterion()
    study = optuna.create_study(direction="maximize")
    begin(study, AutoQuantSampler(SPACE, criterion=criterion, compat="inc2", blocks=BLOCKS))
    with pytest.raises(ValueError, match="was started with other blocks"):
        begin(study, BasicQuantSampler(SPACE))
