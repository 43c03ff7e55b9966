"""Op-type-wise choices: which there are, and in which order their combinations come."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import math

from generated import steady
from hypothesis import given
from hypothesis import strategies as st
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant.samplers._plans import op_types
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


A, B, C, D = STATIC, STATIC_TENSOR, STATIC_KL, DYNAMIC


def space_of(*ops: tuple[str, str, Sequence[OpConfig]]) -> TuningSpace:
    return TuningSpace(tuple(Tunable(name, kind, (name,), tuple(o)) for name, kind, o in ops))


# The options of each type.


def test_options_of_each_type_in_the_order_of_the_model() -> None:
    space = space_of(
        ("fc", "MatMul", (B, A, FP32)),
        ("c1", "Conv", (A, B, FP32)),
        ("c2", "Conv", (A, C, FP32)),
        ("none", "Add", (FP32,)),
    )
    assert op_types.type_options(space) == {"MatMul": [B, A], "Conv": [A, B, C]}


def test_only_options_of_the_default_mode_or_the_given_one() -> None:
    space = space_of(
        ("a", "Conv", (A, B, D, FP32)), ("b", "MatMul", (D, A, FP32)), ("c", "Gemm", (A, FP32))
    )
    assert op_types.type_options(space) == {"Conv": [A, B], "MatMul": [D], "Gemm": [A]}
    assert op_types.type_options(space, "dynamic") == {"Conv": [D], "MatMul": [D]}
    assert op_types.type_options(space, "weight_only") == {}


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        # One op was narrowed: its default is not that of the others.
        ([(C,), (A, B, C)], [A, C, B]),
        ([(C,), (A, C)], [A, C]),
        ([(B, C), (A, B, C)], [A, B, C]),
        ([(A, B, C), (C,)], [A, B, C]),
        # Two ops that have nothing but their defaults cannot be changed.
        ([(A,), (B,)], [A]),
        ([(A,), (B,), (B, C)], [A, C]),
    ],
)
def test_the_first_option_of_a_type_changes_nothing(
    rows: Sequence[Sequence[OpConfig]], options: list[OpConfig]
) -> None:
    space = space_of(*((f"op{i}", "Conv", (*row, FP32)) for i, row in enumerate(rows)))
    found = op_types.type_options(space)["Conv"]
    assert sorted(found, key=options.index) == sorted(options, key=options.index)
    default = space.default()
    assert op_types.apply(space, default, [("Conv", found[0])]) == default
    for option in found[1:]:
        assert op_types.apply(space, default, [("Conv", option)]) != default


def test_a_group_is_a_type_of_its_own() -> None:
    space = space_of(("a", "Conv", (A, B)), ("b", "MatMul", (A, B)), ("c", "Conv", (A, C)))
    assert op_types.type_options(space.group(g=["a", "b"])) == {
        "Conv+MatMul": [A, B],
        "Conv": [A, C],
    }


def test_apply_changes_the_ops_that_have_the_option() -> None:
    space = space_of(("a", "Conv", (A, B)), ("b", "MatMul", (A, B)), ("c", "Conv", (A, C)))
    config = op_types.apply(space, space.default(), [("Conv", B)])
    assert config.ops == {"a": B, "b": A, "c": A}
    config = op_types.apply(space, config, [("MatMul", B), ("Conv", C)])
    assert config.ops == {"a": B, "b": B, "c": C}
    assert op_types.apply(space, config, []) == config


# One change at a time.


def test_single_changes_take_the_types_in_turn() -> None:
    changes = op_types.single_changes({"X": [A, B, C], "Y": [A], "Z": [A, D, B, C]})
    assert changes == [("X", B), ("Z", D), ("X", C), ("Z", B), ("Z", C)]
    assert op_types.single_changes({}) == []


# Combinations.


def promises(
    gains: Mapping[op_types.TypeChoice, float],
    combinations: Sequence[tuple[op_types.TypeChoice, ...]],
) -> list[float]:
    return [math.fsum(gains[choice] for choice in combination) for combination in combinations]


TYPES = {name: [A, B, C, D] for name in ("W", "X", "Y", "Z")}
GAINS = st.dictionaries(
    st.sampled_from([(name, option) for name, options in TYPES.items() for option in options]),
    st.integers(-3, 3).map(float) | st.sampled_from([-math.inf, math.nan]),
    max_size=9,
)


@steady
@given(GAINS, st.booleans())
def test_combinations_are_complete_and_the_most_promising_come_first(
    gains: dict[op_types.TypeChoice, float], only_gains: bool
) -> None:
    found = list(op_types.combinations(gains, only_gains=only_gains))
    usable = [
        choice
        for choice, gain in gains.items()
        if math.isfinite(gain) and (gain > 0 or not only_gains)
    ]
    rows = [[None, *(c for c in usable if c[0] == name)] for name in TYPES]
    expected = {
        frozenset(choice for choice in combination if choice is not None)
        for combination in itertools.product(*rows)
    }
    expected = {combination for combination in expected if len(combination) > 1}
    assert len(found) == len(expected)
    assert {frozenset(combination) for combination in found} == expected
    values = promises(gains, found)
    assert values == sorted(values, reverse=True)


def test_combinations_in_a_known_order() -> None:
    gains = {("X", B): 3.0, ("Y", B): 2.0, ("X", C): 1.0, ("Z", C): -1.0, ("Z", B): math.nan}
    assert list(op_types.combinations(gains, only_gains=True)) == [
        (("X", B), ("Y", B)),
        (("X", C), ("Y", B)),
    ]
    assert list(op_types.combinations(gains, only_gains=False)) == [
        (("X", B), ("Y", B)),
        (("X", B), ("Y", B), ("Z", C)),
        (("X", C), ("Y", B)),
        (("X", B), ("Z", C)),
        (("X", C), ("Y", B), ("Z", C)),
        (("Y", B), ("Z", C)),
        (("X", C), ("Z", C)),
    ]


def test_equal_promises_come_in_a_fixed_order() -> None:
    gains = {(name, option): 1.0 for name in "XYZ" for option in (B, C)}
    first = list(op_types.combinations(gains, only_gains=True))
    assert first == list(op_types.combinations(gains, only_gains=True))
    # What the space has first comes first.
    assert first[0] == (("X", B), ("Y", B), ("Z", B))
    assert first[1] == (("X", B), ("Y", B), ("Z", C))


@pytest.mark.parametrize("gains", [{}, {("X", B): 1.0}, {("X", B): 1.0, ("X", C): 2.0}])
def test_one_type_has_no_combination(gains: dict[op_types.TypeChoice, float]) -> None:
    assert list(op_types.combinations(gains, only_gains=False)) == []


def test_the_best_combinations_of_a_huge_product_come_at_once() -> None:
    gains = {(f"T{i}", option): 1.0 + i for i in range(30) for option in (B, C, D)}
    best = list(itertools.islice(op_types.combinations(gains, only_gains=True), 100))
    assert len(set(best)) == 100
    assert len(best[0]) == 30
    assert promises(gains, best) == [sum(1.0 + i for i in range(30))] * 100


def test_product_has_the_last_type_fastest() -> None:
    space = make_space([("a", "Conv"), ("b", "MatMul")], (A, B, FP32))
    combinations = list(op_types.product(op_types.type_options(space)))
    assert combinations == [
        (("Conv", A), ("MatMul", A)),
        (("Conv", A), ("MatMul", B)),
        (("Conv", B), ("MatMul", A)),
        (("Conv", B), ("MatMul", B)),
    ]
    assert op_types.apply(space, space.default(), combinations[0]) == space.default()
