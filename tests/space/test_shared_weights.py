"""Ops that share one weight have one parameter, so that it is kept in one form."""

from __future__ import annotations

import pytest
from spaces import DYNAMIC
from spaces import STATIC

from optuna_quant.space.blocks import Block
from optuna_quant.space.blocks import block_groups
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.space import TuningSpace


OPTIONS = (STATIC, DYNAMIC, FP32)


def capability(**weights: str) -> Capability:
    """Ops of the type that their name begins with."""
    return Capability(
        tuple(
            OpCapability(name, name.split("_")[0], OPTIONS, weight=weight)
            for name, weight in weights.items()
        )
    )


def ops(space: TuningSpace) -> list[tuple[str, ...]]:
    return [tunable.ops for tunable in space.tunables]


STEPS = capability(
    Conv_1="a", Conv_2="b", Conv_3="a", Gemm_1="a", Conv_4="", Conv_5="", Conv_6="a"
)


def test_ops_of_one_type_and_weight_are_one_parameter() -> None:
    space = TuningSpace.from_capability(STEPS)
    tied = ("Conv_1", "Conv_3", "Conv_6")
    assert ops(space) == [tied, ("Conv_2",), ("Gemm_1",), ("Conv_4",), ("Conv_5",)]
    assert next(iter(space.distributions())) == "quant.op:Conv_1 and 2 more"
    assert space.describe()["group:Conv_1 and 2 more"] == list(tied)
    assert list(space.to_frame()["op"])[:3] == list(tied)


def test_an_op_with_other_options_is_by_itself() -> None:
    space = TuningSpace.from_capability(STEPS, op_name_dict={"Conv_3": {"mode": ["fp32"]}})
    assert ops(space)[:3] == [("Conv_1", "Conv_6"), ("Conv_2",), ("Conv_3",)]
    assert space.tunables[2].options == (FP32,)


@pytest.mark.parametrize("named", ["Conv_3", "Conv_1 and 2 more", "Conv_[13]"])
def test_a_group_takes_tied_ops_together(named: str) -> None:
    space = TuningSpace.from_capability(STEPS).group({"both": [named, "Conv_2"]})
    assert ops(space)[0] == ("Conv_1", "Conv_3", "Conv_6", "Conv_2")


def test_blocks_that_share_weights_have_groups() -> None:
    space = TuningSpace.from_capability(capability(Conv_1="a", Conv_2="b", Conv_3="a", Conv_4="b"))
    blocks = [Block("b0", "b", ("Conv_1", "Conv_2")), Block("b1", "b", ("Conv_3", "Conv_4"))]
    grouped = space.group(block_groups(space, blocks))
    assert ops(grouped) == [("Conv_1", "Conv_3", "Conv_2", "Conv_4")]
    assert block_groups(space, blocks, by="place") == {}  # They are one parameter already.
