"""Configurations: labels that parse back, keys that mean content, JSON that reads back."""

from __future__ import annotations

from collections.abc import Callable
import copy
import json
import os
import pickle
import subprocess
import sys

from generated import OP_NAMES
from generated import op_configs
from generated import quant_configs
from generated import steady
from generated import tensor_configs
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import pytest

from optuna_quant.space.config import DTYPES
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.keys import calibration_digest
from optuna_quant.space.keys import combine_digests
from optuna_quant.space.keys import op_digest
from optuna_quant.space.keys import recipe_digest


ACT = TensorConfig("uint8")
WEIGHT = TensorConfig("int8", "sym", "per_channel")
STATIC = OpConfig("static", ACT, WEIGHT)


# Labels.


@steady
@given(tensor_configs())
def test_tensor_label_parses_back(config: TensorConfig) -> None:
    assert TensorConfig.from_label(config.label) == config


@steady
@given(op_configs())
def test_op_label_parses_back(config: OpConfig) -> None:
    assert OpConfig.from_label(config.label) == config


@steady
@given(op_configs(), op_configs())
def test_op_labels_are_equal_only_for_equal_values(a: OpConfig, b: OpConfig) -> None:
    assert (a.label == b.label) == (a == b)


_PIECES = st.sampled_from(
    [
        *("static", "dynamic", "weight_only", "fp32", " ", "a=", "w=", "a", "w", "=", "/", ""),
        *("uint8/asym/per_tensor/minmax", "int8/sym/per_channel/kl", "int4/sym/per_group=32/rtn"),
        *("per_group=032", "per_group=", "per_group=٣", "per_group=-1", "per_tensor=1", "\n"),
        *("int8", "sym", "per_group", "minmax", "MinMax", "level=", " level=4", " level=0"),
    ]
)


@steady
@given(st.text() | st.lists(_PIECES, max_size=9).map("".join))
@example("static w=int8/sym/per_channel/kl a=uint8/asym/per_tensor/minmax")
@example("static a=uint8/asym/per_tensor/minmax a=uint8/asym/per_tensor/minmax")
@example("static  a=uint8/asym/per_tensor/minmax")
@example("fp32 ")
@example("int4/sym/per_group=032/rtn")
@example("int4/sym/per_group=/rtn")
@example("int4/sym/per_tensor=/minmax")
@example("FP32")
@example("fp32 a=")
@example("static a=uint8/asym/per_tensor/minmax\n")
@example("weight_only w=int4/sym/per_group=032/rtn")
@example("weight_only w=int4/sym/per_group=32/rtn level=04")
@example("weight_only w=int4/sym/per_group=32/rtn level=٤")
@example("weight_only w=int4/sym/per_group=32/rtn level=5")
@example("weight_only level=4 w=int4/sym/per_group=32/rtn")
@example("weight_only w=int4/sym/per_group=32/rtn level=4 level=4")
@example("fp32 level=4")
@example("weight_only w=int4/sym/per_group=" + "9" * 5000 + "/rtn")
@example("weight_only w=int4/sym/per_group=²/rtn")
def test_any_text_is_its_values_label_or_refused(text: str) -> None:
    for kind in (OpConfig, TensorConfig):
        try:
            config = kind.from_label(text)
        except ValueError:
            continue
        assert config.label == text


@pytest.mark.parametrize(
    ("label", "config"),
    [
        ("fp32", FP32),
        ("bf16", OpConfig("bf16")),
        (
            "static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax",
            OpConfig("static", ACT, WEIGHT),
        ),
        ("static a=uint8/asym/per_tensor/minmax", OpConfig("static", ACT)),
        (
            "weight_only w=int4/asym/per_group=32/rtn",
            OpConfig("weight_only", None, TensorConfig("int4", "asym", "per_group", "rtn", 32)),
        ),
        (
            "dynamic a=uint8/asym/per_tensor/kl w=int2/sym/per_tensor/mse",
            OpConfig(
                "dynamic",
                TensorConfig("uint8", algorithm="kl"),
                TensorConfig("int2", "sym", algorithm="mse"),
            ),
        ),
    ],
)
def test_labels_are_as_studies_have_them(label: str, config: OpConfig) -> None:
    # Existing studies hold these strings as the choices of their parameters.
    assert config.label == str(config) == label
    assert OpConfig.from_label(label) == config


# Bad values.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorConfig("int9"), "dtype must be one of uint8, .*, but got 'int9'"),
        (lambda: TensorConfig("fp32"), "dtype must be one of"),
        (lambda: TensorConfig("int8", "both"), "scheme must be one of sym, asym, but got 'both'"),
        (lambda: TensorConfig("int8", "sym", "per_row"), "granularity must be one of"),
        (lambda: TensorConfig("int8", algorithm="Min Max"), "algorithm .* but got 'Min Max'"),
        (lambda: TensorConfig("int8", algorithm="kl\n"), "algorithm must be a lower-case name"),
        (lambda: TensorConfig("int8", algorithm=None), "algorithm .* but got None"),
        (lambda: TensorConfig("int4", granularity="per_group"), "group_size must be given"),
        (lambda: TensorConfig("int4", group_size=32), "group_size must be given exactly if"),
        (
            lambda: TensorConfig("int4", granularity="per_group", group_size=0),
            "group_size must be a positive integer, but got 0",
        ),
        (
            lambda: TensorConfig("int4", granularity="per_group", group_size=True),
            "group_size must be a positive integer, but got True",
        ),
        (
            lambda: TensorConfig("int4", granularity="per_group", group_size=32.0),
            "group_size must be a positive integer, but got 32.0",
        ),
        (lambda: OpConfig("int8"), "mode must be one of static, .*, but got 'int8'"),
        (lambda: OpConfig("static"), "static mode needs an activation"),
        (lambda: OpConfig("static", None, WEIGHT), "static mode needs an activation"),
        (
            lambda: OpConfig("weight_only", ACT, WEIGHT),
            "needs a weight configuration and no other",
        ),
        (lambda: OpConfig("weight_only"), "needs a weight configuration and no other"),
        (lambda: OpConfig("dynamic"), "dynamic mode needs an activation or a weight"),
        (lambda: OpConfig("fp16", ACT), "An op in fp16 has no quantized activation"),
        (lambda: OpConfig("static", "uint8"), "activation must be a TensorConfig .*'uint8'"),
        (lambda: QuantConfig({}, {"alpha": float("nan")}), "Recipe 'alpha' must be finite"),
        (lambda: QuantConfig({}, {"alpha": float("-inf")}), "'alpha' must be finite, .* -inf"),
        (lambda: QuantConfig({}, {"alpha": [0.5]}), r"Recipe 'alpha' must be a number.*\[0.5\]"),
        (lambda: QuantConfig({}, {}, 0), "calibration_size must be a positive integer, .* 0"),
        (lambda: QuantConfig({}, {}, 10.5), "calibration_size must be a positive integer"),
        (lambda: QuantConfig({}, {}, True), "calibration_size .* but got True"),
    ],
)
def test_bad_values(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_every_dtype_has_its_bits() -> None:
    bits = {dtype: TensorConfig(dtype).bits for dtype in DTYPES}
    assert bits == {
        **{"uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "uint4": 4, "int4": 4},
        **{"int3": 3, "int2": 2},
    }


# Keys.


def _content(config: QuantConfig) -> object:
    recipes = {name: json.dumps(value) for name, value in config.recipes.items()}
    return dict(config.ops), recipes, config.calibration_size


@steady
@given(quant_configs(), quant_configs())
def test_equal_key_means_equal_content(a: QuantConfig, b: QuantConfig) -> None:
    same = _content(a) == _content(b)
    assert (a.key == b.key) == same
    assert (a == b) == same
    assert not same or hash(a) == hash(b)


@steady
@given(quant_configs(), st.randoms(use_true_random=False))
def test_key_does_not_depend_on_order(config: QuantConfig, random: object) -> None:
    ops, recipes = list(config.ops.items()), list(config.recipes.items())
    random.shuffle(ops)
    random.shuffle(recipes)
    assert QuantConfig(dict(ops), dict(recipes), config.calibration_size).key == config.key


@steady
@given(quant_configs())
def test_key_is_the_sum_of_its_parts(config: QuantConfig) -> None:
    parts = [op_digest(op, option.label) for op, option in config.ops.items()]
    parts += [recipe_digest(name, value) for name, value in config.recipes.items()]
    assert combine_digests([*parts, calibration_digest(config.calibration_size)]) == config.key


@steady
@given(quant_configs(min_ops=1), st.data())
def test_key_of_a_changed_config_is_as_from_scratch(
    config: QuantConfig, data: st.DataObject
) -> None:
    for _ in range(3):
        some = data.draw(st.lists(st.sampled_from(list(config.ops)), unique=True))
        if data.draw(st.booleans()):
            config = config.with_fallback(*some, mode=data.draw(st.sampled_from(["fp32", "bf16"])))
        else:
            config = config.with_ops({op: data.draw(op_configs()) for op in some})
        again = QuantConfig(dict(config.ops), dict(config.recipes), config.calibration_size)
        assert config.key == again.key
        assert config == again


@steady
@given(quant_configs(min_ops=1))
def test_a_change_and_back_is_no_change(config: QuantConfig) -> None:
    fallback = config.with_fallback(*config.ops)
    assert fallback.with_ops(config.ops) == config
    assert list(fallback.ops) == list(config.ops)
    assert fallback.quantized_ops == ()
    assert fallback.fallback_ops == tuple(config.ops)


@steady
@given(OP_NAMES, OP_NAMES)
def test_ops_do_not_exchange_their_options_unnoticed(a: str, b: str) -> None:
    if a != b:
        one = QuantConfig({a: STATIC, b: FP32})
        other = QuantConfig({a: FP32, b: STATIC})
        assert one.key != other.key


def test_an_op_is_not_taken_for_a_recipe() -> None:
    op = QuantConfig({"x": FP32})
    assert op.key != QuantConfig({}, {"x": "fp32"}).key
    assert QuantConfig({"a\0fp32": FP32}).key != QuantConfig({"a": FP32}).key


@pytest.mark.parametrize("values", [(True, 1), (1, 1.0), (False, 0), (None, "null"), (1, "1")])
def test_recipe_values_of_different_types_differ(values: tuple[object, object]) -> None:
    a, b = (QuantConfig({}, {"r": value}) for value in values)
    assert a != b


PINNED = {
    "dd0fe4ab5467c041ac5e16ba0cc1de06": QuantConfig({}),
    "36d4d1264889be52fae77a00ff08c686": QuantConfig({"/conv1/Conv": STATIC, "fc 2: ß": FP32}),
    "8e673d38f1764cb658e3166eb0f170d3": QuantConfig(
        {}, {"alpha": 0.5, "smooth": True, "n": 1, "s": "ß", "none": None, "tiny": 1e-7}, 300
    ),
}


def test_keys_are_pinned() -> None:
    # With a change of these every existing study forgets what it has evaluated.
    assert {config.key: config for config in PINNED.values()} == PINNED


def test_keys_are_the_same_in_every_process() -> None:
    script = (
        "import sys\n"
        "from optuna_quant.space.config import QuantConfig\n"
        "for line in sys.stdin:\n"
        "    config = QuantConfig.from_json(line)\n"
        "    print(config.key, config.with_fallback(*config.ops).key)\n"
    )
    lines = "".join(config.to_json() + "\n" for config in PINNED.values())
    expected = [f"{c.key} {c.with_fallback(*c.ops).key}" for c in PINNED.values()]
    for seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=lines,
            env={**os.environ, "PYTHONHASHSEED": seed},
            text=True,
            capture_output=True,
            check=True,
        )
        assert done.stdout.splitlines() == expected


# Whole configurations.


@steady
@given(quant_configs())
def test_json_reads_back(config: QuantConfig) -> None:
    text = config.to_json()
    again = QuantConfig.from_json(text)
    assert again == config
    assert again.to_json() == text  # The order of the ops as well.
    assert json.loads(text)["ops"] == {op: option.label for op, option in config.ops.items()}


@steady
@given(quant_configs())
def test_copies_are_equal(config: QuantConfig) -> None:
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config)):
        assert again == config
        assert list(again.ops.items()) == list(config.ops.items())
        assert again.key == config.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("3", "expected an object, but got 3"),
        ("[]", "expected an object"),
        ("{}", "it has no calibration_size, ops, recipes"),
        ('{"ops": {}, "recipes": {}}', "it has no calibration_size"),
        (
            '{"ops": {}, "recipes": {}, "calibration_size": null, "stage": 1}',
            "it has an unknown stage",
        ),
        ('{"ops": [], "recipes": {}, "calibration_size": null}', "ops must be an object"),
        ('{"ops": {}, "recipes": null, "calibration_size": null}', "recipes must be an object"),
        ('{"ops": {"a": "int8"}, "recipes": {}, "calibration_size": null}', "Op 'a': mode must"),
        ('{"ops": {"a": 8}, "recipes": {}, "calibration_size": null}', "Op 'a': mode must"),
        ('{"ops": {}, "recipes": {"r": NaN}, "calibration_size": null}', "'r' must be finite"),
        ('{"ops": {}, "recipes": {"r": {}}, "calibration_size": null}', "'r' must be a number"),
        ('{"ops": {}, "recipes": {}, "calibration_size": "9"}', "must be a positive integer"),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantConfig.from_json(text)


def test_unknown_op_in_a_change() -> None:
    config = QuantConfig({"a": STATIC})
    with pytest.raises(KeyError, match="no op 'b'"):
        config.with_fallback("b")
    with pytest.raises(KeyError, match="no op 'b'"):
        config.with_ops({"a": FP32, "b": FP32})


def test_a_config_does_not_change() -> None:
    ops, recipes = {"a": STATIC}, {"r": 1}
    config = QuantConfig(ops, recipes, 10)
    key = config.key
    ops["a"] = FP32
    recipes["r"] = 2
    config.with_fallback("a")
    config.with_recipe("r", 3)
    config.with_calibration_size(20)
    assert config == QuantConfig({"a": STATIC}, {"r": 1}, 10)
    assert config.key == key
    with pytest.raises(TypeError):
        config.ops["a"] = FP32
    with pytest.raises(TypeError):
        config.recipes["r"] = 2
    with pytest.raises(AttributeError):
        config.calibration_size = 3


def test_changes() -> None:
    config = QuantConfig({"a": STATIC, "b": FP32}, {"r": 1}, 10)
    assert config["a"] == STATIC
    assert config.fallback_ops == ("b",)
    assert config.quantized_ops == ("a",)
    assert config.with_fallback("a")["a"] == FP32
    assert config.with_fallback("a", mode="fp16")["a"] == OpConfig("fp16")
    assert config.with_fallback() == config
    assert config.with_recipe("r", 2).recipes == {"r": 2}
    assert config.with_calibration_size(None).calibration_size is None
    assert config != "something else"


def test_several_names_are_given_one_by_one() -> None:
    config = QuantConfig({"a": FP32, "b": FP32})
    with pytest.raises(TypeError, match=r"names of ops, but got \('a', 'b'\); .*fallback\(\*ops"):
        config.with_fallback(("a", "b"))  # type: ignore[arg-type]
