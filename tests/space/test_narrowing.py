"""op_type_dict and op_name_dict: what is kept, what is ignored, what is warned about."""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import Any
import warnings

from effort import examples
from generated import steady
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR

from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.narrowing import narrow
from optuna_quant.space.space import TuningSpace


INT8_ACT = OpConfig("static", TensorConfig("int8", "sym"), TensorConfig("int8", "sym"))
NO_WEIGHT = OpConfig("static", TensorConfig("uint8"))
BF16 = OpConfig("bf16")
GROUP32 = OpConfig("weight_only", None, TensorConfig("int4", "asym", "per_group", "rtn", 32))
GROUP128 = OpConfig("weight_only", None, TensorConfig("int4", "asym", "per_group", "rtn", 128))
UINT4 = OpConfig("weight_only", None, TensorConfig("uint4", "sym", "per_group", "rtn", 32))

CONV = (STATIC, STATIC_TENSOR, STATIC_KL, FP32)
MATMUL = (STATIC, DYNAMIC, BF16, FP32)
ADD = (NO_WEIGHT, FP32)
OPS = [
    ("/a/conv1", "Conv", CONV),
    ("/a/conv2", "Conv", CONV),
    ("/b/conv3", "ConvTranspose", CONV),
    ("/b/fc", "MatMul", MATMUL),
    ("/b/add", "Add", ADD),
]


def narrowed(
    types: Mapping[str, Any] | None = None,
    names: Mapping[str, Any] | None = None,
    *,
    ops: list[tuple[str, str, tuple[OpConfig, ...]]] = OPS,
) -> dict[str, tuple[OpConfig, ...]]:
    """The options of the ops that were changed; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = narrow(ops, op_type_dict=types, op_name_dict=names)
    return {
        name: left for (name, _, had), left in zip(ops, options, strict=True) if left != tuple(had)
    }


def warned(
    types: Mapping[str, Any] | None = None,
    names: Mapping[str, Any] | None = None,
    *,
    ops: list[tuple[str, str, tuple[OpConfig, ...]]] = OPS,
    **known: list[str],
) -> tuple[dict[str, tuple[OpConfig, ...]], list[str]]:
    """The options that were changed, and all warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = narrow(ops, op_type_dict=types, op_name_dict=names, **known)
    changed = {
        name: left for (name, _, had), left in zip(ops, options, strict=True) if left != tuple(had)
    }
    return changed, [str(warning.message) for warning in caught]


KL_ONLY = {"activation": {"algorithm": ["kl"]}}
MINMAX_ONLY = {"activation": {"algorithm": ["minmax"]}}
IN_FP32 = {"weight": {"dtype": ["fp32"]}}


def test_nothing_asked_changes_nothing() -> None:
    assert narrowed() == {}
    assert narrowed({}, {}) == {}
    assert narrow([]) == []


# Which ops are meant.


@pytest.mark.parametrize(
    ("pattern", "ops"),
    [
        ("Conv", ["/a/conv1", "/a/conv2"]),
        ("Conv.*", ["/a/conv1", "/a/conv2", "/b/conv3"]),
        ("Conv|ConvTranspose", ["/a/conv1", "/a/conv2", "/b/conv3"]),
        (".*Transpose", ["/b/conv3"]),
    ],
)
def test_types_are_matched_as_a_whole(pattern: str, ops: list[str]) -> None:
    assert narrowed({pattern: KL_ONLY}) == dict.fromkeys(ops, (STATIC_KL, FP32))


@pytest.mark.parametrize(
    ("pattern", "ops"),
    [
        ("/a/conv1", ["/a/conv1"]),
        ("/a/.*", ["/a/conv1", "/a/conv2"]),
        (r".*conv\d", ["/a/conv1", "/a/conv2", "/b/conv3"]),
        ("(?i).*CONV3", ["/b/conv3"]),
    ],
)
def test_names_are_matched_as_a_whole(pattern: str, ops: list[str]) -> None:
    assert narrowed(None, {pattern: KL_ONLY}) == dict.fromkeys(ops, (STATIC_KL, FP32))


def test_a_part_of_a_name_is_no_match() -> None:
    with pytest.raises(ValueError, match=r"\['Con'\] matches no op type. Did you mean 'Conv'\?"):
        narrow(OPS, op_type_dict={"Con": KL_ONLY})
    with pytest.raises(
        ValueError, match=r"\['conv1'\] matches no op name. Did you mean '/a/conv1'"
    ):
        narrow(OPS, op_name_dict={"conv1": KL_ONLY})


def test_the_name_of_a_module_is_told_the_expression_for_its_ops() -> None:
    with pytest.raises(ValueError, match=r"For the 2 ops in it write '/a\[\./\]\.\*'") as caught:
        narrow(OPS, op_name_dict={"/a": KL_ONLY})
    assert "regular expression that must match the whole name" in str(caught.value)
    assert narrowed(None, {"/a[./].*": KL_ONLY}).keys() == {"/a/conv1", "/a/conv2"}


def test_a_name_is_told_the_nearest_op_whether_it_is_tuned_or_not() -> None:
    known = ["/a/conv1", "/a/Softmax"]
    for mistyped, meant in (("/a/Sofmax", "/a/Softmax"), ("/a/cnv1", "/a/conv1")):
        with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
            narrow(OPS, op_name_dict={mistyped: KL_ONLY}, known_names=known)


def test_a_module_of_one_op() -> None:
    ops = [("/m/x", "Conv", CONV)]
    with pytest.raises(ValueError, match="For the op in it write"):
        narrow(ops, op_name_dict={"/m": KL_ONLY})


@pytest.mark.parametrize("name", ["a.b", "conv[0", "f(x", "*", "a+b", "\\", "", "a\nb", "x|y"])
def test_an_exact_name_is_no_regular_expression(name: str) -> None:
    ops = [(name, "Conv", CONV), ("axb", "Conv", CONV), ("x", "Conv", CONV)]
    assert narrowed(None, {name: KL_ONLY}, ops=ops) == {name: (STATIC_KL, FP32)}


@steady
@given(st.text(max_size=8), st.text(max_size=8))
def test_any_name_means_its_op_alone(name: str, other: str) -> None:
    if name != other:
        ops = [(other, "Conv", CONV), (name, "Conv", CONV)]
        assert narrowed(None, {name: KL_ONLY}, ops=ops) == {name: (STATIC_KL, FP32)}


# What is kept.


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"activation": {"algorithm": ["minmax"]}}, (STATIC, STATIC_TENSOR, FP32)),
        ({"weight": {"granularity": ["per_tensor"]}}, (STATIC_TENSOR, FP32)),
        ({"weight": {"granularity": ["per_channel"]}}, (STATIC, STATIC_KL, FP32)),
        (
            {"weight": {"granularity": ["per_channel"]}, "activation": {"algorithm": ["kl"]}},
            (STATIC_KL, FP32),
        ),
        ({"activation": {"algorithm": "KL"}}, (STATIC_KL, FP32)),
        ({"mode": ["static"]}, (STATIC, STATIC_TENSOR, STATIC_KL)),
        ({"mode": "fp32"}, (FP32,)),
        ({"mode": ["static"], "weight": {"granularity": ["per_tensor"]}}, (STATIC_TENSOR,)),
        ({"weight": {"dtype": ["fp32"]}}, (FP32,)),
        ({"activation": {"dtype": ["fp32"]}}, (FP32,)),
        (
            {"weight": {"dtype": ["fp32"]}, "activation": {"algorithm": ["minmax"]}},
            (FP32,),
        ),
        (
            {"weight": {"dtype": ["fp32"]}, "activation": {"dtype": ["uint8"]}},
            (FP32,),
        ),
        (
            {
                "activation": {"dtype": ["fp32"], "algorithm": ["kl"]},
                "weight": {"dtype": ["int8"]},
            },
            (FP32,),
        ),
    ],
)
def test_what_is_kept(body: dict[str, Any], left: tuple[OpConfig, ...]) -> None:
    expected = {"/a/conv1": left, "/a/conv2": left}
    assert narrowed({"Conv": body}) == expected
    assert narrowed(None, {"/a/conv.": body}) == expected


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"mode": ["dynamic"]}, (DYNAMIC,)),
        ({"mode": ["dynamic", "fp32"]}, (DYNAMIC, FP32)),
        ({"mode": ["bf16", "static"]}, (STATIC, BF16)),
        ({"weight": {"dtype": ["bf16"]}}, (BF16,)),
        ({"weight": {"dtype": ["bf16", "fp32"]}}, (BF16, FP32)),
        ({"weight": {"dtype": ["int8", "fp32"]}}, (STATIC, DYNAMIC, FP32)),
    ],
)
def test_several_float_modes(body: dict[str, Any], left: tuple[OpConfig, ...]) -> None:
    assert narrowed({"MatMul": body}) == {"/b/fc": left}


@pytest.mark.parametrize(
    ("weight", "left"),
    [
        ({"group_size": [128]}, (GROUP128, FP32)),
        ({"group_size": 32}, (GROUP32, UINT4, FP32)),
        ({"bits": [8]}, (STATIC, FP32)),
        ({"bits": 4}, (GROUP32, GROUP128, UINT4, FP32)),
        ({"bits": 4, "dtype": ["int4"]}, (GROUP32, GROUP128, FP32)),
        ({"scheme": ["asym"], "group_size": [32, 128]}, (GROUP32, GROUP128, FP32)),
        ({"algorithm": ["RTN"], "dtype": "UINT4"}, (UINT4, FP32)),
    ],
)
def test_weight_only_fields(weight: dict[str, Any], left: tuple[OpConfig, ...]) -> None:
    ops = [("m", "MatMul", (STATIC, GROUP32, GROUP128, UINT4, FP32))]
    kept = narrowed({"MatMul": {"weight": weight}}, ops=ops)["m"]
    # A group size says nothing about options that have none.
    expected = (STATIC, *left) if set(weight) == {"group_size"} else left
    assert kept == expected


def test_an_op_without_a_weight_is_not_meant_by_weight_settings() -> None:
    weight = {"weight": {"granularity": ["per_channel"], "dtype": ["int8"]}}
    changed = narrowed({".*": weight})
    assert "/b/add" not in changed
    assert narrowed({"Add": IN_FP32}) == {"/b/add": (FP32,)}


def test_an_op_without_fallback_stays_without() -> None:
    ops = [("a", "Conv", (STATIC, STATIC_KL))]
    assert narrowed({"Conv": KL_ONLY}, ops=ops) == {"a": (STATIC_KL,)}


def test_a_float_mode_that_an_op_lacks_does_not_take_its_fallback() -> None:
    changed = narrowed({"Conv|MatMul": {"weight": {"dtype": ["int8", "bf16"]}}})
    assert changed == {"/b/fc": (STATIC, DYNAMIC, BF16)}


# Which of two wishes counts.


def test_a_name_goes_over_a_type() -> None:
    changed = narrowed({"Conv.*": KL_ONLY}, {"/a/conv2": MINMAX_ONLY})
    assert changed == {
        "/a/conv1": (STATIC_KL, FP32),
        "/a/conv2": (STATIC, STATIC_TENSOR, FP32),
        "/b/conv3": (STATIC_KL, FP32),
    }
    assert narrowed({"Conv": IN_FP32}, {"/a/conv2": {"weight": {"dtype": ["int8"]}}}) == {
        "/a/conv1": (FP32,)
    }
    assert narrowed({"Conv": {"mode": ["fp32"]}}, {"/a/conv2": {"mode": ["static"]}}) == {
        "/a/conv1": (FP32,),
        "/a/conv2": (STATIC, STATIC_TENSOR, STATIC_KL),
    }


def test_different_fields_add_up() -> None:
    changed = narrowed(
        {"Conv": {"weight": {"granularity": ["per_channel"]}}}, {"/a/conv2": KL_ONLY}
    )
    assert changed == {"/a/conv1": (STATIC, STATIC_KL, FP32), "/a/conv2": (STATIC_KL, FP32)}


def test_a_later_pattern_goes_over_an_earlier_one() -> None:
    first = narrowed({"Conv": KL_ONLY, "Conv.*": MINMAX_ONLY})
    assert set(first.values()) == {(STATIC, STATIC_TENSOR, FP32)}
    second = narrowed({"Conv.*": MINMAX_ONLY, "Conv": KL_ONLY})
    assert second["/a/conv1"] == (STATIC_KL, FP32)
    assert second["/b/conv3"] == (STATIC, STATIC_TENSOR, FP32)
    third = narrowed(None, {"/a/conv1": KL_ONLY, ".*conv.*": MINMAX_ONLY})
    assert third["/a/conv1"] == (STATIC, STATIC_TENSOR, FP32)


def test_a_value_that_is_not_there_leaves_the_earlier_wish() -> None:
    changed, messages = warned(
        {"Conv": KL_ONLY}, {"/a/conv1": {"activation": {"algorithm": ["mse"]}}}
    )
    assert changed == {"/a/conv1": (STATIC_KL, FP32), "/a/conv2": (STATIC_KL, FP32)}
    assert len(messages) == 1


# Warnings.


def test_an_unknown_value_is_ignored_with_one_warning() -> None:
    changed, (message,) = warned({"Conv": {"activation": {"algorithm": ["mse", "kl"]}}})
    assert changed == {"/a/conv1": (STATIC_KL, FP32), "/a/conv2": (STATIC_KL, FP32)}
    assert message == (
        "op_type_dict['Conv']['activation']['algorithm']: 'mse' is not available and is ignored; "
        "available: minmax, kl."
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"weight": {"dtype": ["int4", "itn8"]}},
         "['dtype']: there is no dtype 'itn8'. Did you mean 'int8'? There are uint8, int8"),
        ({"mode": ["int8"]}, "['mode']: there is no mode 'int8'. There are static, dynamic"),
        ({"mode": ["sttic"]}, "there is no mode 'sttic'. Did you mean 'static'?"),
        ({"weight": {"scheme": "symm"}}, "there is no scheme 'symm'. Did you mean 'sym'?"),
        ({"weight": {"granularity": ["per-channel"]}}, "Did you mean 'per_channel'?"),
        ({"activation": {"algorithm": ["min_max"]}},
         "no algorithm 'min_max'. Did you mean 'minmax'?"),
        ({"weight": {"bits": ["8"]}}, "['weight']['bits'] must be integers, but got '8'"),
        ({"weight": {"bits": [5]}}, "['bits']: there is no type of 5 bits; there are "),
        ({"weight": {"group_size": 0}}, "must be positive, or -1 for a scale per channel"),
        ({"weight": {"dtpye": ["int8"]}},
         "unknown field; known are dtype, bits, scheme, granularity, group_size, algorithm. "
         "Did you mean 'dtype'?"),
        ({"weigth": {"dtype": ["int8"]}},
         "or 'mode' or 'accuracy_level' with a list. Did you mean 'weight'?"),
    ],
)  # fmt: skip
def test_a_value_that_exists_nowhere_is_an_error_with_the_nearest(
    body: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        narrow(OPS, op_type_dict={".*": body})
    with pytest.raises(ValueError, match=re.escape(message)):
        narrow(OPS, op_name_dict={"/b/fc": body})


def test_a_value_that_some_op_offers_exists() -> None:
    own = OpConfig("static", TensorConfig("uint8", algorithm="mine"))
    ops = [*OPS, ("other", "Mul", (own, FP32))]
    _, messages = warned({"Conv": {"activation": {"algorithm": ["mine"]}}}, ops=ops)
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("types", "names", "message"),
    [
        ({"Covn": {}}, None,
         "op_type_dict['Covn'] matches no op type. Did you mean 'Conv'? "
         "The op types are Add, Conv, ConvTranspose, MatMul."),
        ({"conv": {}}, None, "Did you mean 'Conv'?"),
        ({"Softmx": {}}, None, "Did you mean 'Softmax'?"),
        ({"Xyz.*": {}}, None, "matches no op type. The op types are"),
        (None, {"/a/conv3": {}},
         "op_name_dict['/a/conv3'] matches no op name. Did you mean '/b/conv3'"),
        (None, {"/a/fc.*": {}}, "Did you mean '/b/fc'?"),
        (None, {"/b/sotfmax": {}}, "Did you mean '/b/softmax'?"),
    ],
)  # fmt: skip
def test_a_type_or_name_that_exists_nowhere_is_an_error_with_the_nearest(
    types: Any, names: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        narrow(
            OPS,
            op_type_dict=types,
            op_name_dict=names,
            known_types=["Softmax"],
            known_names=["/b/softmax"],
        )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"mode": ["dynamic"]}, ["['mode']: 'dynamic' is not available", "static, fp32"]),
        ({"weight": {"group_size": [32]}}, ["32 is not available", "available: nothing"]),
        ({"weight": {"bits": [4]}}, ["4 is not available", "available: 8"]),
        ({"weight": {"scheme": ["asym"]}}, ["'asym' is not available", "available: sym"]),
    ],
)
def test_what_is_not_available_is_named_once(body: dict[str, Any], words: list[str]) -> None:
    changed, (message,) = warned({"Conv": body})
    assert changed == {}
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("types", "names", "message"),
    [
        (
            None,
            {"/a/conv1": {"mode": ["fp16"]}},
            "op_name_dict['/a/conv1']['mode']: 'fp16' is not available; nothing that was asked "
            "for is left. Available: static, fp32.",
        ),
        (None, {"/a/conv1": {"mode": ["dynamic"]}}, "['mode']: 'dynamic' is not available; "),
        ({"Conv": {"mode": ["bf16", "fp16"]}}, None, "'bf16', 'fp16' is not available; nothing"),
        ({"Conv": {"weight": {"dtype": ["bf16"]}}}, None, "Available: int8, fp32."),
    ],
)
def test_a_wish_to_protect_ops_that_cannot_be_kept_is_an_error(
    types: Any, names: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        narrow(OPS, op_type_dict=types, op_name_dict=names)


@pytest.mark.parametrize("body", [KL_ONLY, {}, {"weight": {}}])
def test_a_pattern_that_matches_what_exists_elsewhere(body: dict[str, Any]) -> None:
    known = {"known_types": ["Gemm"], "known_names": ["/c/softmax"]}
    changed, (message,) = warned({"Gem.*": body}, **known)
    assert changed == {}
    assert message == (
        "op_type_dict['Gem.*'] matches no op that is tuned and is ignored; "
        "the types of those are Add, Conv, ConvTranspose, MatMul."
    )
    changed, (message,) = warned(None, {"/c/.*": body}, **known)
    assert changed == {}
    assert message.startswith("op_name_dict['/c/.*'] matches no op that is tuned and is ignored; ")
    assert "/a/conv1, /a/conv2" in message


def test_a_long_list_of_names_is_cut() -> None:
    ops = [(f"op{i}", "Conv", CONV) for i in range(500)]
    with pytest.raises(ValueError, match="op10, op11, and 488 more."):
        narrow(ops, op_name_dict={"x": {**KL_ONLY, "mode": ["static"]}})


def test_ops_that_offer_none_of_the_values_are_named_once() -> None:
    changed, (message,) = warned({".*": KL_ONLY})
    assert set(changed) == {"/a/conv1", "/a/conv2", "/b/conv3"}
    assert message == (
        "op_type_dict['.*']['activation']['algorithm']: 'kl' is not available for op '/b/fc', "
        "'/b/add' and is ignored there; available: minmax."
    )
    # Of several values, what an op has is enough.
    assert "/b/add" not in narrowed({".*": {"activation": {"algorithm": ["kl", "minmax"]}}})


def test_a_mode_that_an_op_lacks_is_ignored_there() -> None:
    changed, (message,) = warned({".*": {"mode": ["dynamic"]}})
    assert changed == {"/b/fc": (DYNAMIC,)}
    assert "'dynamic' is not available for op '/a/conv1', '/a/conv2'" in message
    # But fallback is a mode as well.
    assert narrowed({".*": {"mode": ["dynamic", "fp32"]}}) == {
        "/a/conv1": (FP32,),
        "/a/conv2": (FP32,),
        "/b/conv3": (FP32,),
        "/b/fc": (DYNAMIC, FP32),
        "/b/add": (FP32,),
    }


def test_a_combination_that_does_not_exist_does_not_force_fallback() -> None:
    ops = [("a", "Conv", (STATIC, INT8_ACT, FP32)), ("b", "Conv", (STATIC, INT8_ACT, FP32))]
    both = {"activation": {"dtype": ["int8"]}, "weight": {"granularity": ["per_channel"]}}
    changed, (message,) = warned({"Conv": both}, ops=ops)
    # The later one counts.
    assert changed == {"a": (STATIC, FP32), "b": (STATIC, FP32)}
    assert message == (
        "op_type_dict['Conv']['activation']['dtype'] is not compatible with the other "
        "settings of op 'a', 'b' and is ignored there; the options of op 'a' are: "
        f"{STATIC.label}; {INT8_ACT.label}; fp32."
    )


def test_of_wishes_that_do_not_fit_together_the_name_counts() -> None:
    changed, (message,) = warned({"Conv": {"mode": ["static"]}}, {"/a/conv1": IN_FP32})
    assert changed == {
        "/a/conv1": (FP32,),
        "/a/conv2": (STATIC, STATIC_TENSOR, STATIC_KL),
    }
    assert message.startswith("op_type_dict['Conv']['mode'] is not compatible")


def test_a_name_goes_over_every_field_of_a_type() -> None:
    ops = [("a", "Conv", (STATIC, INT8_ACT, FP32)), ("b", "Conv", (STATIC, INT8_ACT, FP32))]
    of_type = {"activation": {"dtype": ["uint8"]}, "weight": {"granularity": ["per_channel"]}}
    changed, (message,) = warned(
        {"Conv": of_type}, {"a": {"activation": {"dtype": ["int8"]}}}, ops=ops
    )
    assert changed == {"a": (INT8_ACT, FP32), "b": (STATIC, FP32)}
    assert message.startswith("op_type_dict['Conv']['weight']['granularity'] is not compatible")
    assert "of op 'a' and" in message


def test_warnings_point_to_the_callers_line() -> None:
    capability = Capability(tuple(OpCapability(*op) for op in OPS), known_types=("Gemm",))
    with pytest.warns(UserWarning) as caught:
        TuningSpace.from_capability(
            capability,
            op_type_dict={"Gemm": IN_FP32, "Conv": {"mode": ["dynamic"]}, ".*": KL_ONLY},
            op_name_dict={"/a/conv1": {"mode": ["static"], **IN_FP32}},
        )
    assert len(caught) == 4
    assert {warning.filename for warning in caught} == {__file__}


# Never empty.


_VALUES = {
    "dtype": ["int8", "uint8", "int4", "uint4", "fp32", "bf16", "int2"],
    "scheme": ["sym", "asym"],
    "granularity": ["per_tensor", "per_channel", "per_group"],
    "algorithm": ["minmax", "kl", "rtn", "mse"],
    "group_size": [32, 128, -1],
    "bits": [4, 8, 16],
}
_SIDE = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(values), min_size=1, max_size=3)
        for name, values in _VALUES.items()
    },
)
_BODY = st.fixed_dictionaries(
    {},
    optional={
        "activation": _SIDE,
        "weight": _SIDE,
        "mode": st.lists(
            st.sampled_from(["static", "dynamic", "weight_only", "fp32", "bf16"]),
            min_size=1,
            max_size=3,
        ),
    },
)
_TYPES = st.dictionaries(st.sampled_from(["Conv", "Conv.*", "MatMul", ".*", "Gemm"]), _BODY)
_NAMES = st.dictionaries(st.sampled_from(["/a/conv1", "/a/.*", "/b/fc", ".*", "none"]), _BODY)
_MANY_OPTIONS = (STATIC, STATIC_TENSOR, INT8_ACT, DYNAMIC, GROUP32, UINT4, BF16, FP32)


def _asks_for_float(*dictionaries: Mapping[str, Any]) -> bool:
    return bool(re.search("'fp32'|'bf16'", str(dictionaries)))


@settings(steady, max_examples=examples(300))
@given(_TYPES, _NAMES)
def test_something_is_always_left(types: dict[str, Any], names: dict[str, Any]) -> None:
    ops = [*OPS, ("/b/many", "MatMul", _MANY_OPTIONS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {"known_types": ["Gemm"], "known_names": ["none"]}
        try:
            options = narrow(ops, op_type_dict=types, op_name_dict=names, **known)
        except ValueError as error:
            assert "nothing that was asked for is left" in str(error)
            return
        again = narrow(ops, op_type_dict=types, op_name_dict=names, **known)
    assert options == again
    for (_, _, had), left in zip(ops, options, strict=True):
        assert left
        assert list(left) == [option for option in had if option in left]
        if not _asks_for_float(types, names):
            assert any(option.is_quantized for option in left)


# Dictionaries of another shape.


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([("Conv", {})], "op_type_dict must be a dictionary"),
        ("Conv", "op_type_dict must be a dictionary, but got 'Conv'"),
        ({"Conv": ["fp32"]}, "op_type_dict['Conv'] must be a dictionary, but got ['fp32']"),
        ({"Conv": None}, "op_type_dict['Conv'] must be a dictionary, but got None"),
        ({"Conv": {"dtype": ["int8"]}}, "op_type_dict['Conv']['dtype']: expected 'activation'"),
        ({"Conv": {"weight": ["int8"]}}, "op_type_dict['Conv']['weight']: expected"),
        ({"Conv": {"mode": []}}, "op_type_dict['Conv']['mode'] must be a list with at least one"),
        (
            {"Conv": {"weight": {"type": ["int8"]}}},
            "op_type_dict['Conv']['weight']['type']: unknown field; known are dtype, bits",
        ),
        (
            {"Conv": {"weight": {"dtype": []}}},
            "op_type_dict['Conv']['weight']['dtype'] must be a list with at least one value",
        ),
        (
            {"Conv": {"weight": {"dtype": None}}},
            "op_type_dict['Conv']['weight']['dtype'] must be a list with at least one value, "
            "but got None",
        ),
        (
            {"Conv": {"weight": {"dtype": {"int8"}}}},
            "op_type_dict['Conv']['weight']['dtype'] must be a list",
        ),
        (
            {"Conv": {"weight": {"dtype": [["int8"]]}}},
            "op_type_dict['Conv']['weight']['dtype']: ['int8'] is neither text nor an integer",
        ),
        (
            {"Conv": {"weight": {"bits": [8.0]}}},
            "op_type_dict['Conv']['weight']['bits']: 8.0 is neither text nor an integer",
        ),
        ({"Conv(": {}}, "op_type_dict['Conv(']: the pattern is not a regular expression"),
        ({3: {}}, "op_type_dict[3]: the pattern must be text"),
    ],
)
def test_another_shape_is_an_error_that_names_the_place(types: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        narrow(OPS, op_type_dict=types)
    with pytest.raises(ValueError, match=re.escape(message.replace("op_type", "op_name"))):
        narrow(OPS, op_name_dict=types)


def test_a_bad_pattern_tells_about_escaping() -> None:
    with pytest.raises(ValueError, match=r"use re\.escape for names with special characters"):
        narrow(OPS, op_name_dict={"/a/conv[": {}})
