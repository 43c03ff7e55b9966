"""Pre-defined settings as configurations of a space."""

from __future__ import annotations

import pickle

from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.presets import Preset
from optuna_quant.space.space import TuningSpace


OPTIONS = (STATIC, STATIC_TENSOR, FP32)
OPS = ("op0", "op1", "op2")
PRESETS = (
    Preset("default", dict.fromkeys(OPS, STATIC)),
    Preset("tensor", dict.fromkeys(OPS, STATIC_TENSOR)),
    Preset("tensor again", dict.fromkeys(OPS, STATIC_TENSOR)),
    Preset("without last", {**dict.fromkeys(OPS, STATIC_TENSOR), "op2": FP32}),
)


def test_equal_ones_are_left_out() -> None:
    found = make_space(3, OPTIONS, presets=PRESETS).preset_configs()
    assert list(found) == ["tensor", "without last"]
    assert found["without last"].fallback_ops == ("op2",)


def test_an_op_without_the_option_keeps_its_default() -> None:
    space = make_space(3, (STATIC, FP32), presets=PRESETS)
    (config,) = space.preset_configs().values()
    assert [config.ops[op] for op in OPS] == [STATIC, STATIC, FP32]


def test_other_ops_and_unknown_ones_are_of_no_matter() -> None:
    preset = Preset("some", {"op1": STATIC_TENSOR, "elsewhere": DYNAMIC})
    space = make_space(3, OPTIONS, presets=[preset])
    assert [preset.config(space.default(), space.tunables).ops[op] for op in OPS] == [
        STATIC,
        STATIC_TENSOR,
        STATIC,
    ]


def test_tied_ops_need_the_same_option() -> None:
    space = make_space(3, OPTIONS, presets=PRESETS).group(pair=["op1", "op2"])
    found = space.preset_configs()
    assert set(found["tensor"].ops.values()) == {STATIC_TENSOR}
    without_last = found["without last"]
    assert [without_last.ops[op] for op in OPS] == [STATIC_TENSOR, STATIC, STATIC]


def test_they_are_no_part_of_what_identifies_a_space() -> None:
    assert (
        make_space(3, OPTIONS).description == make_space(3, OPTIONS, presets=PRESETS).description
    )


def test_a_space_keeps_them_in_another_process() -> None:
    space = make_space(3, OPTIONS, presets=PRESETS)
    again = pickle.loads(pickle.dumps(space))
    assert again == space
    assert hash(again) == hash(space)
    assert again.preset_configs() == space.preset_configs()


def test_none_where_the_user_names_algorithms() -> None:
    capability = Capability(
        tuple(OpCapability(op, "Conv", OPTIONS) for op in OPS), presets=PRESETS
    )
    assert TuningSpace.from_capability(capability).presets == PRESETS
    for names in ("op_type_dict", "op_name_dict"):
        for side, left in (("activation", PRESETS), ("weight", ())):
            wish = {".*": {side: {"algorithm": ["minmax"]}}}
            space = TuningSpace.from_capability(capability, **{names: wish})
            assert space.presets == left
