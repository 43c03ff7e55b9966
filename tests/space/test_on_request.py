"""Options that are in the space only if the user asks for what is special about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OnRequest
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.narrowing import narrow
from optuna_quant.space.space import TuningSpace


_USUAL = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym", "per_channel"))
_BY_ALGORITHM = OnRequest(
    replace(_USUAL, activation=TensorConfig("uint8", algorithm="mean_minmax")),
    frozenset({"algorithm"}),
    side="activation",
)
_BY_MODE_AND_BITS = OnRequest(
    OpConfig("weight_only", None, TensorConfig("int4", "sym", "per_group", "rtn", 32)),
    frozenset({"mode", "bits"}),
)
_MEAN, _FOUR_BITS = _BY_ALGORITHM.option, _BY_MODE_AND_BITS.option


def _asking(wish: dict[str, Any], *, by_name: dict[str, Any] | None = None) -> list[OpConfig]:
    (options,) = narrow(
        [("a", "MatMul", (_USUAL, FP32))],
        op_type_dict={"MatMul": wish},
        op_name_dict=None if by_name is None else {"a": by_name},
        on_request={"a": (_BY_ALGORITHM, _BY_MODE_AND_BITS)},
    )
    return list(options)


@pytest.mark.parametrize(
    ("wish", "options"),
    [
        ({}, [_USUAL, FP32]),
        ({"weight": {"granularity": ["per_channel"]}}, [_USUAL, FP32]),
        ({"activation": {"algorithm": ["minmax"]}}, [_USUAL, FP32]),
        ({"activation": {"algorithm": ["mean_minmax"]}}, [_MEAN, FP32]),
        ({"activation": {"algorithm": ["minmax", "mean_minmax"]}}, [_USUAL, _MEAN, FP32]),
        ({"mode": ["static", "fp32"]}, [_USUAL, FP32]),
        ({"mode": ["weight_only", "fp32"], "weight": {"bits": [4]}}, [_FOUR_BITS, FP32]),
        ({"mode": ["weight_only", "fp32"], "weight": {"dtype": ["int4"]}}, [_FOUR_BITS, FP32]),
    ],
)
def test_an_option_on_request_is_there_where_its_fields_are_named(
    wish: dict[str, Any], options: list[OpConfig]
) -> None:
    assert _asking(wish) == options


@pytest.mark.parametrize(
    "wish",
    [
        {"weight": {"algorithm": ["mean_minmax"]}},  # Of the other side,
        {"mode": ["weight_only"]},  # one of two fields,
        {"weight": {"bits": [4]}},  # and the other.
    ],
)
def test_other_fields_do_not_ask_for_an_option(wish: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="is not available"):
        assert _asking(wish) == [_USUAL, FP32]


def test_an_option_on_request_that_another_wish_excludes_is_left_out() -> None:
    both = {"activation": {"algorithm": ["minmax", "mean_minmax"]}}
    assert _asking(both, by_name={"activation": {"algorithm": ["minmax"]}}) == [_USUAL, FP32]
    only = _asking({"activation": {"algorithm": ["minmax"]}}, by_name=both)
    assert only == [_USUAL, _MEAN, FP32]


def test_a_space_has_options_on_request_only_where_they_are_asked_for() -> None:
    """So without a wish the space, and with it the signature of a study, stay as they are."""
    op = OpCapability("a", "MatMul", (_USUAL, FP32))
    more = replace(op, on_request=(_BY_ALGORITHM, _BY_MODE_AND_BITS))
    plain, extended = (TuningSpace.from_capability(Capability((each,))) for each in (op, more))
    assert extended.description == plain.description

    asked = TuningSpace.from_capability(
        Capability((more,)),
        op_type_dict={"MatMul": {"activation": {"algorithm": ["mean_minmax"]}}},
    )
    assert asked.tunables[0].options == (_MEAN, FP32)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (
            {"weight": {"bits": [16]}},
            "['bits']: 16 is not available and is ignored; available: 8.",
        ),
        (
            {"weight": {"algorithm": ["hqq"]}},
            "'hqq' is not available and is ignored; available: minmax.",
        ),
        (
            {"activation": {"algorithm": ["kl"]}},
            "'kl' is not available and is ignored; available: minmax, mean_minmax.",
        ),
        (
            {"weight": {"bits": [4]}},
            "4 is not available unless mode 'weight_only' is named as well and is ignored",
        ),
        (
            {"weight": {"dtype": ["int4"]}},
            "'int4' is not available unless mode 'weight_only' is named as well and is ignored",
        ),
        (
            {"weight": {"group_size": [32]}},
            "32 is not available unless mode 'weight_only' and weight bits 4 is named as well",
        ),
        (
            {"mode": ["weight_only", "fp32"]},
            "'weight_only' is not available unless weight bits 4 is named as well",
        ),
        (
            {"weight": {"algorithm": ["gptq"]}},
            "'gptq' is not available without calibration_data and is ignored; available: minmax.",
        ),
    ],
)
def test_a_warning_says_what_can_be_asked_for(wish: dict[str, Any], words: str) -> None:
    with pytest.warns(UserWarning) as caught:
        narrow(
            [("a", "MatMul", (_USUAL, FP32))],
            op_type_dict={"MatMul": wish},
            on_request={"a": (_BY_ALGORITHM, _BY_MODE_AND_BITS)},
            unavailable={"gptq": "without calibration_data"},
        )
    (message,) = (str(each.message) for each in caught)
    assert words in message
