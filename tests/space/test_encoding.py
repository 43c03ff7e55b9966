"""Configurations and what a study records of them: there and back, and what does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import pytest
from spaces import DYNAMIC
from spaces import STATIC

from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.encoding import Encoding
from optuna_quant.space.encoding import parameter_name
from optuna_quant.space.keys import RecipeValue
from optuna_quant.space.tunable import Tunable


FREE = Tunable("free", "Conv", ("free",), (STATIC, DYNAMIC, FP32))
PAIR = Tunable("pair", "Add", ("left", "right"), (STATIC, FP32))
FIXED = Tunable("fixed", "Conv", ("fixed",), (STATIC,))


def encoding(
    recipes: Mapping[str, Sequence[RecipeValue]] | None = None, sizes: Sequence[int] = ()
) -> Encoding:
    return Encoding([FREE, PAIR, FIXED], recipes or {}, sizes, "quant")


WHOLE = encoding({"smooth": ("off", "on"), "level": ("all",)}, (100, 200))


def test_what_has_one_choice_has_no_parameter() -> None:
    assert [p.name for p in WHOLE.parameters] == [
        "quant.op:free",
        "quant.op:pair",
        "quant.recipe:smooth",
        "quant.calibration_size",
    ]


def test_a_configuration_comes_back() -> None:
    config = QuantConfig(
        {"free": DYNAMIC, "left": FP32, "right": FP32, "fixed": STATIC},
        {"smooth": "on", "level": "all"},
        200,
    )
    assert WHOLE.config_of(WHOLE.positions_of(config) or ()) == config
    assert WHOLE.config_from_params(WHOLE.params_of(config)) == config


def test_the_key_of_parameters_is_that_of_the_configuration() -> None:
    sizes = [len(p.values) for p in WHOLE.parameters]
    keys = set()
    for number in range(2 * 2 * 2 * 3):
        positions = []
        for size in sizes:
            number, position = divmod(number, size)
            positions.append(position)
        config = WHOLE.config_of(positions)
        assert WHOLE.key_from_params(WHOLE.params_of(config)) == config.key
        keys.add(config.key)
    assert len(keys) == 24


@pytest.mark.parametrize(
    "ops",
    [
        {"left": STATIC, "right": FP32},  # Ops that go together have one option.
        {"free": STATIC, "left": STATIC, "right": STATIC, "fixed": FP32},
        {"free": STATIC},
    ],
)
def test_a_configuration_that_the_space_lacks_has_no_place(ops: dict[str, Any]) -> None:
    assert encoding().positions_of(QuantConfig({"free": FP32, "fixed": STATIC} | ops)) is None


def test_what_is_missing_is_named_with_what_was_given() -> None:
    with pytest.raises(KeyError, match=r"lack 'quant.op:pair'.*they are 'quant.op:free'\. Give"):
        encoding().config_from_params({"quant.op:free": FP32.label})
    with pytest.raises(KeyError, match="which this tuning space has: none is given"):
        encoding().config_from_params({})
    with pytest.raises(KeyError, match="'a', 'b', 'c' and 1 more"):
        encoding().config_from_params(dict.fromkeys("abcd", 0))


@pytest.mark.parametrize("value", ["int3", None, ["a list"]])
def test_a_value_that_does_not_exist_has_no_configuration(value: object) -> None:
    params = {"quant.op:free": value, "quant.op:pair": FP32.label}
    assert encoding().key_from_params(params) is None
    with pytest.raises(ValueError, match="'quant.op:free' has no choice"):
        encoding().config_from_params(params)


def test_names_fit_into_the_column_of_a_database_and_differ() -> None:
    assert parameter_name("quant", "op:a") == "quant.op:a"
    long = parameter_name("quant", "op:" + "a" * 503)
    assert long == "quant.op:" + "a" * 503  # Just as long as it may be.
    one, other = (parameter_name("quant", "op:" + "a" * 600 + end) for end in "xy")
    assert len(one) == len(other) == 512
    assert one != other
    assert one.startswith("quant.op:aaa")
