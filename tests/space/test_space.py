"""The tuning space: parameters, configurations by number, groups, and what people see."""

from __future__ import annotations

from collections.abc import Callable
import copy
import itertools
import math
import pickle
import subprocess
import sys

import generated
from generated import steady
from hypothesis import given
from hypothesis import strategies as st
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


BF16 = OpConfig("bf16")


def all_configs(space: TuningSpace, *, fallback: bool = True) -> list[QuantConfig]:
    count = space.count(fallback=fallback)
    return [space.config_at(index, fallback=fallback) for index in range(count)]


# Parameters.


def test_distributions_are_the_labels_of_each_op() -> None:
    space = make_space(
        [("a", "Conv"), ("b", "MatMul")],
        (STATIC, DYNAMIC, FP32),
        recipes={"smooth": (False, True), "fixed": (3,)},
        calibration_sizes=(100, 10),
        prefix="q",
    )
    ops = CategoricalDistribution((STATIC.label, DYNAMIC.label, "fp32"))
    assert space.distributions() == {
        "q.op:a": ops,
        "q.op:b": ops,
        "q.recipe:smooth": CategoricalDistribution((False, True)),
        "q.calibration_size": CategoricalDistribution((100, 10)),
    }
    assert space.default().recipes == {"smooth": False, "fixed": 3}


def test_what_is_fixed_has_no_parameter() -> None:
    space = TuningSpace(
        (Tunable("a", "Conv", ("a",), (STATIC,)),), {"r": (1,)}, calibration_sizes=(50,)
    )
    assert space.distributions() == {}
    assert space.size == 1
    assert (
        space.default() == space.config_from_params({}) == QuantConfig({"a": STATIC}, {"r": 1}, 50)
    )
    assert space.key_from_params({}) == space.default().key


@steady
@given(generated.spaces(), st.integers(0, 2**32 - 1))
def test_suggest_gives_the_config_of_the_trials_params(space: TuningSpace, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        trial = study.ask()
        config = space.suggest(trial)
        assert trial.distributions == space.distributions()
        assert space.config_from_params(trial.params) == config
        assert space.params_of(config) == trial.params
        assert space.key_from_params(trial.params) == config.key
        assert config in space
        assert space.config_of(space.positions_of(config)) == config
        # The same from what a study was given back by a storage.
        frozen = study.get_trials()[trial.number]
        assert space.suggest(frozen) == config
        assert space.suggest(optuna.trial.FixedTrial(trial.params)) == config


@steady
@given(generated.spaces(), st.data())
def test_config_params_and_key_agree(space: TuningSpace, data: st.DataObject) -> None:
    config = space.config_at(data.draw(st.integers(0, space.size - 1)))
    params = space.params_of(config)
    assert set(params) == set(space.distributions())
    assert space.config_from_params(params) == config
    assert space.key_from_params(params) == config.key
    assert config.key == QuantConfig(config.ops, config.recipes, config.calibration_size).key
    assert set(config.ops) == {op for tunable in space.tunables for op in tunable.ops}
    # Other parameters of the same study do not matter.
    more = {"lr": 0.1, "other.op:a": "fp32"} | params
    assert space.config_from_params(more) == config
    assert space.key_from_params(more) == config.key


def test_params_are_checked() -> None:
    space = make_space(2, recipes={"r": (None, 1)})
    params = space.params_of(space.default())
    assert params["quant.recipe:r"] is None
    lacking = {name: value for name, value in params.items() if name != "quant.recipe:r"}
    with pytest.raises(KeyError, match=r"quant\.recipe:r"):
        space.config_from_params(lacking)
    # A missing parameter is not one whose value is None.
    assert space.key_from_params(lacking) is None
    for wrong in (DYNAMIC.label, "nonsense", 3, [STATIC.label], float("nan")):
        other = params | {"quant.op:op1": wrong}
        with pytest.raises(ValueError, match="'quant.op:op1' has no choice"):
            space.config_from_params(other)
        assert space.key_from_params(other) is None


def test_no_params_at_all_are_told_in_words() -> None:
    with pytest.raises(KeyError) as caught:
        make_space(2).config_from_params({})
    assert "lack 'quant.op:op0', which this tuning space has: none is given." in str(caught.value)


class GivesOtherChoices(optuna.samplers.RandomSampler):
    """A sampler of another space."""

    def infer_relative_search_space(self, *_: object) -> dict[str, BaseDistribution]:
        return make_space(2, (DYNAMIC, STATIC, FP32)).distributions()

    def sample_relative(
        self, study: object, trial: object, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        return make_space(2, (DYNAMIC, STATIC, FP32)).params_of(
            make_space(2, (DYNAMIC, STATIC, FP32)).default()
        )


def test_sampler_of_another_space_is_told() -> None:
    trial = optuna.create_study(sampler=GivesOtherChoices()).ask()
    told = (
        "'quant.op:op0'.* tuning space of the sampler .*give it to the sampler and the objective"
    )
    with pytest.raises(ValueError, match=told):
        make_space(2).suggest(trial)


@pytest.mark.parametrize("storage", [None, "sqlite://"])
def test_study_of_another_space_is_told(storage: str | None) -> None:
    study = optuna.create_study(storage=storage)
    study.ask()
    make_space(2, (DYNAMIC, STATIC, FP32)).suggest(study.ask())
    with pytest.raises(ValueError, match="'quant.op:op0'.* of trial 1 .* another name"):
        make_space(2).suggest(study.ask())


def test_params_are_read_as_optuna_reads_them() -> None:
    # Optuna takes 10.0 for the choice 10, and keeps the choice; so do we.
    space = make_space(1, calibration_sizes=(100, 10), recipes={"n": (1, 2)})
    config = space.default().with_calibration_size(10)
    study = optuna.create_study(storage="sqlite://")
    study.enqueue_trial(space.params_of(config) | {"quant.calibration_size": 10.0})
    trial = study.ask()
    suggested = space.suggest(trial)
    assert suggested == config
    assert suggested.calibration_size == 10
    assert isinstance(suggested.calibration_size, int)
    assert space.key_from_params(trial.params) == config.key
    assert space.key_from_params(study.trials[0].params) == config.key


@pytest.mark.parametrize("values", [(True, 1), (1, 1.0), (0, "a", False), (0.0, -0.0), ("a", "a")])
def test_recipe_values_that_optuna_cannot_tell_apart_are_refused(values: tuple) -> None:
    with pytest.raises(ValueError, match="Recipe 'r' has the values .* which are equal"):
        make_space(1, recipes={"r": values})


def test_a_recipe_keeps_the_type_of_its_values() -> None:
    booleans = make_space(1, recipes={"r": (False, True)})
    integers = make_space(1, recipes={"r": (0, 1)})
    assert integers.default() not in booleans
    assert integers.default().key != booleans.default().key
    assert booleans.config_from_params(integers.params_of(integers.default())).recipes == {
        "r": False
    }
    assert booleans.key_from_params(integers.params_of(integers.default())) == (
        booleans.default().key
    )


def test_names_that_databases_cannot_hold_are_shortened() -> None:
    long = "block/" * 400
    space = make_space([(long + "a", "Conv"), (long + "b", "Conv")], prefix="p")
    names = list(space.distributions())
    assert len(set(names)) == 2
    assert all(len(name) == 512 and name.startswith("p.op:block/block/") for name in names)
    config = space.config_at(1)
    assert list(config.ops) == [long + "a", long + "b"]
    assert set(space.params_of(config)) == set(names)
    assert space.key_from_params(space.params_of(config)) == config.key
    assert list(space.to_frame()["parameter"]) == names
    exact = "x" * (512 - len("p.op:"))
    assert list(make_space([(exact, "Conv")], prefix="p").distributions()) == [f"p.op:{exact}"]


def test_names_are_the_same_in_every_process() -> None:
    script = (
        "import spaces, sys\n"
        "space = spaces.make_space([('x' * 3000, 'Conv'), ('y', 'Conv')])\n"
        "print(*space.distributions(), space.config_at(2).key)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    space = make_space([("x" * 3000, "Conv"), ("y", "Conv")])
    assert outputs == {" ".join([*space.distributions(), space.config_at(2).key]) + "\n"}


def test_spaces_of_different_prefix_live_in_one_study() -> None:
    encoder = make_space(2, prefix="encoder")
    decoder = make_space(2, (STATIC, DYNAMIC), prefix="decoder")
    study = optuna.create_study()
    trial = study.ask()
    a, b = encoder.suggest(trial), decoder.suggest(trial)
    trial.suggest_float("lr", 0, 1)
    assert encoder.config_from_params(trial.params) == a
    assert decoder.config_from_params(trial.params) == b
    assert len(trial.params) == 5


# Configurations by number.


def test_size_is_exact_for_a_huge_space() -> None:
    space = make_space(
        500, (STATIC, STATIC_KL, FP32), recipes={"r": (1, 2)}, calibration_sizes=(10, 20, 30)
    )
    assert space.size == 3**500 * 6
    assert isinstance(space.size, int)
    assert space.count(fallback=False) == 2**500 * 6
    last = space.config_at(space.size - 1)
    assert set(last.ops.values()) == {FP32}
    assert (last.recipes["r"], last.calibration_size) == (2, 30)
    assert space.config_at(2**500 * 6 - 1, fallback=False).ops["op0"] == STATIC_KL
    assert space.config_at(0) == space.default()


def test_the_last_parameter_runs_fastest() -> None:
    space = make_space(2, (STATIC, FP32), calibration_sizes=(10, 20))
    short = {STATIC: "s", FP32: "f"}
    order = [
        "".join(short[option] for option in config.ops.values()) + str(config.calibration_size)
        for config in all_configs(space)
    ]
    assert order == ["ss10", "ss20", "sf10", "sf20", "fs10", "fs20", "ff10", "ff20"]


@steady
@given(generated.spaces())
def test_every_config_has_one_number(space: TuningSpace) -> None:
    rows = [tunable.options for tunable in space.tunables]
    assert space.size == math.prod(
        map(len, [*rows, *space.recipes.values(), space.calibration_sizes or (None,)])
    )
    if space.size > 300:
        return
    configs = all_configs(space)
    expected = {
        QuantConfig(
            {op: o for t, o in zip(space.tunables, options, strict=True) for op in t.ops},
            dict(zip(space.recipes, recipes, strict=True)),
            size,
        )
        for options in itertools.product(*rows)
        for recipes in itertools.product(*space.recipes.values())
        for size in space.calibration_sizes or (None,)
    }
    assert len(configs) == len(expected) == space.size
    assert set(configs) == expected
    assert configs[0] == space.default()


@steady
@given(generated.spaces())
def test_without_fallback_only_ops_that_have_nothing_else_are_in_fallback(
    space: TuningSpace,
) -> None:
    count = space.count(fallback=False)
    if count > 300:
        return
    quantizable = {op for t in space.tunables if t.quantized for op in t.ops}
    wanted = [c for c in all_configs(space) if not quantizable & set(c.fallback_ops)]
    configs = all_configs(space, fallback=False)
    # The same ones, in the same order.
    assert configs == wanted
    assert configs[0] == space.default()


@pytest.mark.parametrize("fallback", [True, False])
def test_there_is_no_config_outside(fallback: bool) -> None:
    space = make_space(3, (STATIC, STATIC_KL, FP32))
    for index in (-1, space.count(fallback=fallback)):
        with pytest.raises(IndexError, match=f"no configuration {index} in this space"):
            space.config_at(index, fallback=fallback)


# What belongs to the space.


def test_the_default_is_the_first_option_of_everything() -> None:
    space = make_space(
        2, (STATIC_KL, STATIC, FP32), recipes={"r": (0.5, 0.1)}, calibration_sizes=(7, 8)
    )
    assert space.default() == QuantConfig({"op0": STATIC_KL, "op1": STATIC_KL}, {"r": 0.5}, 7)
    changed = space.default().with_recipe("r", 0.1).with_calibration_size(8).with_fallback("op0")
    assert space.without_recipes(changed) == space.default().with_fallback("op0")


def test_fp32() -> None:
    space = make_space(2, recipes={"r": (1, 2)})
    assert space.has_fp32
    assert space.fp32() == space.default().with_fallback("op0", "op1")
    assert space.fp32() in space
    for without in (
        make_space(2, (STATIC,)),
        make_space(2, (STATIC, DYNAMIC)),
        make_space(2, (STATIC, BF16)),
        TuningSpace(
            (
                Tunable("a", "Conv", ("a",), (STATIC, FP32)),
                Tunable("b", "Conv", ("b",), (STATIC,)),
            )
        ),
    ):
        assert not without.has_fp32
        assert without.fp32() not in without
        assert without.fp32().quantized_ops == ()


def test_what_is_not_in_the_space() -> None:
    space = make_space(2, (STATIC, FP32), recipes={"r": (1, 2), "fixed": (0,)})
    config = space.default()
    outside = [
        config.with_ops({"op0": DYNAMIC}),
        config.with_recipe("r", 3),
        config.with_recipe("fixed", 1),
        config.with_recipe("more", 1),
        config.with_calibration_size(10),
        QuantConfig({**config.ops, "op2": STATIC}, config.recipes),
        QuantConfig({"op0": STATIC}, config.recipes),
        QuantConfig(config.ops, {"r": 1}),
    ]
    for other in outside:
        assert other not in space
        assert space.positions_of(other) is None
        with pytest.raises(ValueError, match="The list: the configuration is not in the tuning"):
            space.check(other, "The list")
    with pytest.raises(ValueError, match="op 'op0' has dynamic"):
        space.check(outside[0], "x")
    assert config in space
    space.check(config, "x")
    assert "quant" not in space


def test_group_members_must_agree() -> None:
    space = make_space(2).group(both=["op0", "op1"])
    split = space.default().with_fallback("op1")
    assert split not in space
    with pytest.raises(ValueError, match="op 'both' has"):
        space.check(split, "x")


def test_options_of_a_tunable() -> None:
    tunable = Tunable("g", "Conv", ("op0", "op1"), (STATIC, DYNAMIC, BF16, FP32))
    assert tunable.default == STATIC
    assert tunable.quantized == tunable.choices(fallback=False) == (STATIC, DYNAMIC)
    assert tunable.fallbacks == (BF16, FP32)
    assert tunable.choices(fallback=True) == tunable.options
    config = tunable.set(make_space(3).default(), DYNAMIC)
    assert config.ops == {"op0": DYNAMIC, "op1": DYNAMIC, "op2": STATIC}
    # An op that cannot be quantized has its fallback as the only choice.
    assert Tunable("a", "Conv", ("a",), (BF16, FP32)).choices(fallback=False) == (BF16, FP32)


# Groups.


def test_a_group_is_one_parameter() -> None:
    space = make_space(5, (STATIC, DYNAMIC, FP32)).group({"block": ["op1", "op[34]"]})
    assert list(space.distributions()) == ["quant.op:op0", "quant.op:block", "quant.op:op2"]
    assert space.size == 27
    config = space.config_from_params(
        space.params_of(space.default()) | {"quant.op:block": DYNAMIC.label}
    )
    assert {op for op, option in config.ops.items() if option == DYNAMIC} == {"op1", "op3", "op4"}
    assert space.key_from_params(space.params_of(config)) == config.key
    # The same model as without the group has the same key.
    assert (
        config.key
        == make_space(5, (STATIC, DYNAMIC, FP32))
        .default()
        .with_ops({"op1": DYNAMIC, "op3": DYNAMIC, "op4": DYNAMIC})
        .key
    )


def test_a_group_offers_what_all_its_ops_offer() -> None:
    space = TuningSpace(
        (
            Tunable("a", "Conv", ("a",), (STATIC, STATIC_KL, BF16, FP32)),
            Tunable("b", "MatMul", ("b",), (DYNAMIC, STATIC_KL, STATIC, FP32)),
            Tunable("c", "Conv", ("c",), (STATIC, FP32)),
        )
    ).group(ab=("a", "b"))
    (group, rest) = space.tunables
    assert group == Tunable("ab", "Conv+MatMul", ("a", "b"), (STATIC, STATIC_KL, FP32))
    assert rest.name == "c"


def test_a_value_that_is_no_choice_is_named_with_the_choices() -> None:
    space = make_space([("a", "Conv"), ("b", "Conv")])
    study = optuna.create_study()
    name = space.parameters[0].name
    study.enqueue_trial({name: "fp16"})
    with pytest.raises(
        ValueError,
        match=rf"Trial 0 was enqueued with '{name}' = 'fp16', which is not one of its choices in "
        "the tuning space: .*, 'fp32'\\.",
    ):
        study.optimize(lambda trial: len(space.suggest(trial).ops), n_trials=1)
    other = space.parameters[0].choices[1:]

    def of_another_space(trial: optuna.Trial) -> float:
        trial.suggest_categorical(name, other)
        return len(space.suggest(trial).ops)

    with pytest.raises(
        ValueError, match=f"{name!r} has other choices in the tuning space of trial 1 "
    ):
        study.optimize(of_another_space, n_trials=2)


def test_groups_of_groups_and_keywords() -> None:
    space = make_space(6).group({"x": ["op0", "op1"]}, y=["op2", "op3"])
    assert [t.name for t in space.tunables] == ["x", "y", "op4", "op5"]
    again = space.group(all="x|y")
    assert again.tunables[0].ops == ("op0", "op1", "op2", "op3")
    assert make_space(3).group() == make_space(3)


def test_a_group_keeps_the_rest_of_the_space() -> None:
    space = make_space(2, recipes={"r": (1, 2)}, calibration_sizes=(1, 2), prefix="p")
    grouped = space.group(g=["op0", "op1"])
    assert grouped.recipes == space.recipes
    assert grouped.calibration_sizes == (1, 2)
    assert list(grouped.distributions()) == ["p.op:g", "p.recipe:r", "p.calibration_size"]


def test_a_name_is_not_taken_for_a_regular_expression() -> None:
    space = make_space([("a.b", "Conv"), ("axb", "Conv"), ("[(", "Conv")])
    assert space.group(g="a.b").tunables[0].ops == ("a.b",)
    assert space.group(g=["a.b", "[("]).tunables[0].ops == ("a.b", "[(")
    # A regular expression must match the whole name.
    with pytest.raises(ValueError, match="matches 'a'"):
        space.group(g="a")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"g": ["op9"]}, "No op of the tuning space matches 'op9'"),
        ({"g": ["op0", "op1"], "h": ["op[12]"]}, "Op 'op1' is in two groups: 'g' and 'h'"),
        ({"g": []}, "Group 'g' has no op"),
        ({"op2": ["op0", "op1"]}, "Group 'op2' is named like an op that is not in it"),
        ({"g": ["op(0"]}, r"named 'op\(0', and it is not a regular expression"),
    ],
)
def test_bad_groups(groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_space(3).group(groups)


def test_a_group_needs_a_common_option() -> None:
    space = TuningSpace(
        (
            Tunable("a", "Conv", ("a",), (STATIC,)),
            Tunable("b", "Conv", ("b",), (DYNAMIC,)),
        )
    )
    with pytest.raises(ValueError, match="group 'g' have no option in common"):
        space.group(g=["a", "b"])


# From a capability.


CAPABILITY = Capability(
    (
        OpCapability("conv1", "Conv", (FP32, STATIC, STATIC_KL)),
        OpCapability("add", "Add", (STATIC, FP32), default=False),
        OpCapability("fc", "MatMul", (STATIC, DYNAMIC, STATIC, FP32)),
    ),
    {"smooth": (False, True)},
    (100, 200),
)


def test_space_of_a_capability() -> None:
    space = TuningSpace.from_capability(CAPABILITY, prefix="q")
    assert space == TuningSpace(
        (
            Tunable("conv1", "Conv", ("conv1",), (STATIC, STATIC_KL, FP32)),
            Tunable("fc", "MatMul", ("fc",), (STATIC, DYNAMIC, FP32)),
        ),
        {"smooth": (False, True)},
        (100, 200),
        "q",
    )


@pytest.mark.parametrize(
    ("op_types", "ops"),
    [
        ("default", ["conv1", "fc"]),
        ("all", ["conv1", "add", "fc"]),
        ("Add", ["add"]),
        (["MatMul", "Add"], ["add", "fc"]),
        (("Conv",), ["conv1"]),
        (["default"], ["conv1", "fc"]),
        (["default", "Add"], ["conv1", "add", "fc"]),
    ],
)
def test_op_types(op_types: object, ops: list[str]) -> None:
    space = TuningSpace.from_capability(CAPABILITY, op_types=op_types)
    assert [tunable.name for tunable in space.tunables] == ops


def test_dictionaries_narrow_the_space() -> None:
    space = TuningSpace.from_capability(
        CAPABILITY,
        op_type_dict={"Conv": {"activation": {"algorithm": ["kl"]}}},
        op_name_dict={"fc": {"weight": {"dtype": ["fp32"]}}},
    )
    assert [tunable.options for tunable in space.tunables] == [(STATIC_KL, FP32), (FP32,)]
    assert space.default().ops == {"conv1": STATIC_KL, "fc": FP32}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TuningSpace(()), "The tuning space has no op"),
        (
            lambda: make_space([("a", "Conv"), ("a", "Conv")]),
            "The op name 'a' is used more than once",
        ),
        (
            lambda: TuningSpace(
                (
                    Tunable("g", "Conv", ("a",), (STATIC,)),
                    Tunable("g", "Conv", ("b",), (STATIC,)),
                )
            ),
            "The tunable name 'g' is used more than once",
        ),
        (lambda: make_space(1, ()), "Op 'op0' has no option"),
        (lambda: make_space(1, (STATIC, STATIC)), "Op 'op0' has the same option twice"),
        (
            lambda: make_space(1, (FP32, STATIC)),
            "options of op 'op0' must start with the quantized ones",
        ),
        (lambda: Tunable("g", "Conv", (), (STATIC,)), "'g' has no op"),
        (lambda: make_space(1, recipes={"r": ()}), "Recipe 'r' has no value"),
        (lambda: make_space(1, recipes={"r": (0, float("inf"))}), "'r' must be finite"),
        (lambda: make_space(1, recipes={"r": (0, (1, 2))}), "'r' must be a number"),
        (lambda: make_space(1, calibration_sizes=(10, 0)), "calibration_size .* but got 0"),
        (lambda: make_space(1, calibration_sizes=(10, 10)), "calibration_sizes has the values 10"),
        (
            lambda: TuningSpace.from_capability(CAPABILITY, op_types="Gemm"),
            "no 'Gemm' that can be quantized; there are: Add, Conv, MatMul",
        ),
        (lambda: TuningSpace.from_capability(CAPABILITY, op_types=[]), "op_types is empty"),
        (
            lambda: TuningSpace.from_capability(Capability(CAPABILITY.ops[1:2])),
            r"op that is worth quantizing. On request \(op_types=\"all\" or --op-types all\): Add",
        ),
        (lambda: TuningSpace.from_capability(Capability(())), "no op that is worth quantizing.$"),
        (
            lambda: TuningSpace.from_capability(Capability((), hint="Export it again.")),
            "no op that is worth quantizing. Export it again.$",
        ),
        (
            lambda: TuningSpace.from_capability(Capability(()), op_types="Conv"),
            "This model has no op that can be quantized",
        ),
        (
            lambda: TuningSpace.from_capability(CAPABILITY, op_type_dict={"Conv": ["fp32"]}),
            r"op_type_dict\['Conv'\] must be a dictionary",
        ),
    ],
)
def test_bad_spaces(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# As a value, and for people.


@steady
@given(generated.spaces())
def test_copies_are_equal(space: TuningSpace) -> None:
    assert space.default() in space  # Fills the caches, which are not part of the value.
    for again in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space), copy.copy(space)):
        assert again == space
        assert hash(again) == hash(space)
        assert again.distributions() == space.distributions()
        assert again.default() == space.default()


def test_lists_become_tuples() -> None:
    tunable = Tunable("a", "Conv", ("a",), (STATIC, FP32))
    recipes = {"r": [1, 2]}
    space = TuningSpace([tunable], recipes, [10, 20])
    recipes["r"].append(3)
    assert space == TuningSpace((tunable,), {"r": (1, 2)}, (10, 20))
    assert hash(space) == hash(TuningSpace((tunable,), {"r": (1, 2)}, (10, 20)))


def test_to_frame_has_a_row_per_op() -> None:
    space = TuningSpace(
        (
            Tunable("conv", "Conv", ("conv",), (STATIC, STATIC_KL, DYNAMIC, BF16, FP32)),
            Tunable("pair", "MatMul", ("q", "k"), (STATIC_TENSOR, FP32)),
            Tunable("fc", "Gemm", ("fc",), (FP32,)),
        )
    )
    frame = space.to_frame()
    assert list(frame.columns) == [
        *("op", "op_type", "parameter", "default", "options"),
        *("modes", "activation", "weight", "fallback"),
    ]
    assert frame.set_index("op").to_dict("index") == {
        "conv": {
            "op_type": "Conv",
            "parameter": "quant.op:conv",
            "default": STATIC.label,
            "options": 5,
            "modes": "static, dynamic",
            "activation": "uint8/asym/per_tensor/minmax, uint8/asym/per_tensor/kl",
            "weight": "int8/sym/per_channel/minmax",
            "fallback": "bf16, fp32",
        },
        "q": (
            pair := {
                "op_type": "MatMul",
                "parameter": "quant.op:pair",
                "default": STATIC_TENSOR.label,
                "options": 2,
                "modes": "static",
                "activation": "uint8/asym/per_tensor/minmax",
                "weight": "int8/sym/per_tensor/minmax",
                "fallback": "fp32",
            }
        ),
        "k": pair,
        "fc": {
            "op_type": "Gemm",
            "parameter": "",
            "default": "fp32",
            "options": 1,
            "modes": "",
            "activation": "",
            "weight": "",
            "fallback": "fp32",
        },
    }


def test_describe_tells_spaces_apart() -> None:
    space = make_space(3, recipes={"r": (1, 2)}, calibration_sizes=(10, 20))
    others = [
        make_space(2, recipes={"r": (1, 2)}, calibration_sizes=(10, 20)),
        make_space(3, (STATIC, DYNAMIC), recipes={"r": (1, 2)}, calibration_sizes=(10, 20)),
        make_space(3, recipes={"r": (2, 1)}, calibration_sizes=(10, 20)),
        make_space(3, recipes={"r": (1, 2)}, calibration_sizes=(10,)),
        space.group(op0=["op0", "op1"]),
        space.group(g=["op0"]),
    ]
    descriptions = [str(each.describe()) for each in (space, *others)]
    assert len(set(descriptions)) == len(descriptions)
    assert (
        make_space(3, recipes={"r": (1, 2)}, calibration_sizes=(10, 20), prefix="other").describe()
        == space.describe()
    )


def test_repr_is_one_line_with_counts() -> None:
    space = make_space([(f"op{i}", "Conv" if i else "MatMul") for i in range(300)])
    assert repr(space) == (
        "<TuningSpace: 300 ops (299 Conv, 1 MatMul), 600 options, 300 parameters 'quant.*'; "
        "to_frame() shows them>"
    )


def test_foreign_parameters_are_an_error_that_names_what_is_missing() -> None:
    with pytest.raises(KeyError, match=r"lack 'quant.op:op0'.* they are 'lr', 'wd'\. Give those"):
        make_space(2).config_from_params({"lr": 1, "wd": 2})
