"""The basic strategy: the exact order of what it evaluates, on spaces with a known answer."""

from __future__ import annotations

import optuna
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import make_space
from spaces import objective_of
from staged_search import loss_per_op
from staged_search import run

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.presets import Preset


def test_fallback_from_last_to_first_then_by_impact() -> None:
    space = make_space(4)
    order = run(space, loss_per_op(op0=0.2, op1=0.0, op2=0.4, op3=0.1))
    assert order == [
        "baseline: ffff",
        "default: ssss",
        "instance-wise fallback: sssf",
        "instance-wise fallback: ssfs",
        "instance-wise fallback: sfss",
        "instance-wise fallback: fsss",
        "accumulated fallback: fsfs",
        "accumulated fallback: fsff",
    ]


def test_equal_impact_keeps_the_order_of_the_fallback() -> None:
    order = run(make_space(3), loss_per_op(op0=0.1, op1=0.1, op2=0.1))
    assert order[2:] == [
        "instance-wise fallback: ssf",
        "instance-wise fallback: sfs",
        "instance-wise fallback: fss",
        "accumulated fallback: sff",
    ]


def test_lower_is_better() -> None:
    metric = loss_per_op(op0=0.2, op1=0.0, op2=0.4)
    order = run(make_space(3), lambda config: -metric(config), direction="minimize")
    assert order[-1] == "accumulated fallback: fsf"


def _presets() -> tuple[Preset, ...]:
    ops = ("op0", "op1", "op2")
    return (
        Preset("as by default", dict.fromkeys(ops, STATIC)),
        Preset("tensor", dict.fromkeys(ops, STATIC_TENSOR)),
        Preset("tensor without last", {**dict.fromkeys(ops, STATIC_TENSOR), "op2": FP32}),
        Preset("kl", dict.fromkeys(ops, STATIC_KL)),
    )


@pytest.mark.parametrize("compat", [None, "inc2"])
def test_presets_come_after_the_default(compat: str | None) -> None:
    space = make_space(3, (STATIC, STATIC_TENSOR, STATIC_KL, FP32), presets=_presets())
    worth = {STATIC: 0.0, STATIC_TENSOR: 0.2, STATIC_KL: 0.1, FP32: 0.3}
    order = run(
        space,
        lambda config: sum(worth[option] for option in config.ops.values()),
        compat=compat,
    )
    assert order[:5] == [
        "baseline: fff",
        "default: sss",
        "pre-defined settings: ttt",
        "pre-defined settings: ttf",
        "pre-defined settings: kkk",
    ]
    # The best of them is what the rest begins with.
    assert order[5:] == [
        "instance-wise fallback: tff",
        "instance-wise fallback: ftf",
    ]


def test_what_is_not_quantized_is_looked_for_in_the_best_preset() -> None:
    space = make_space(3, (STATIC, STATIC_TENSOR, FP32), presets=_presets()[:2])
    worth = {STATIC: 0.2, STATIC_TENSOR: 0.1, FP32: 0.0}
    criterion = AccuracyCriterion(tolerable_loss=0.15, criterion="absolute")
    order = run(
        space,
        lambda config: 1.0 - sum(worth[option] for option in config.ops.values()),
        criterion=criterion,
    )
    assert order[:4] == [
        "baseline: fff",
        "default: sss",
        "pre-defined settings: ttt",
        "fallback by halves: fft",
    ]


def test_op_types_one_by_one_then_combined() -> None:
    space = make_space(
        [("a", "Conv"), ("b", "MatMul"), ("c", "Conv")], (STATIC, STATIC_TENSOR, STATIC_KL, FP32)
    )
    worth = {STATIC: 0.0, STATIC_TENSOR: 0.1, STATIC_KL: 0.2, FP32: 0.3}
    order = run(space, lambda config: sum(worth[option] for option in config.ops.values()))
    assert order[:9] == [
        "baseline: fff",
        "default: sss",
        "op-type-wise: tst",
        "op-type-wise: sts",
        "op-type-wise: ksk",
        "op-type-wise: sks",
        "op-type-wise combined: kkk",
        "op-type-wise combined: ktk",
        "op-type-wise combined: tkt",
    ]
    # The best of them is what ops fall back from.
    assert order[10] == "instance-wise fallback: kkf"


def test_of_equal_configurations_the_earlier_is_the_base() -> None:
    space = make_space([("a", "Conv"), ("b", "MatMul")], (STATIC, STATIC_TENSOR, FP32))
    order = run(space, lambda config: 0.5)
    assert "instance-wise fallback: sf" in order


def test_combinations_without_gain_only_on_request() -> None:
    space = make_space([("a", "Conv"), ("b", "MatMul")], (STATIC, STATIC_TENSOR, FP32))
    assert not any("combined" in line for line in run(space, lambda config: 0.5))
    everything = run(space, lambda config: 0.5, max_op_type_trials=None)
    assert "op-type-wise combined: tt" in everything


def test_op_type_trials_are_limited() -> None:
    space = make_space([("a", "Conv"), ("b", "MatMul")], (STATIC, STATIC_TENSOR, STATIC_KL, FP32))
    order = run(space, lambda config: float(len(config.fallback_ops)), max_op_type_trials=3)
    assert [line for line in order if line.startswith("op-type-wise")] == [
        "op-type-wise: ts",
        "op-type-wise: st",
        "op-type-wise: ks",
    ]
    assert not any(
        line.startswith("op-type-wise")
        for line in run(space, lambda config: 0.0, max_op_type_trials=0)
    )


def test_static_to_dynamic() -> None:
    space = make_space(2, (STATIC, DYNAMIC, FP32))
    good = run(space, lambda config: 1.0 if config["op0"] == DYNAMIC else 0.5)
    assert good[2:5] == [
        "static to dynamic: dd",
        "instance-wise fallback: df",
        "instance-wise fallback: fd",
    ]


def test_every_float_mode_has_its_fallback_cheapest_first() -> None:
    space = make_space(2, (STATIC, OpConfig("fp16"), OpConfig("bf16"), FP32))
    assert run(space, lambda config: 0.5)[2:] == [
        "instance-wise fallback (bf16): sb",
        "instance-wise fallback (bf16): bs",
        "accumulated fallback (bf16): bb",
        "instance-wise fallback (fp16): sh",
        "instance-wise fallback (fp16): hs",
        "accumulated fallback (fp16): hh",
        "instance-wise fallback: sf",
        "instance-wise fallback: fs",
    ]


def test_recipes() -> None:
    space = make_space(1, recipes={"smooth": (False, True), "alpha": (0.5, 0.7)})
    order = run(space, lambda config: 1.0 if config.recipes["smooth"] else 0.5)
    assert order == [
        "baseline: f smooth=False alpha=0.5",
        "default: s smooth=False alpha=0.5",
        "all recipes: s smooth=True alpha=0.7",
        "recipes one by one: s smooth=True alpha=0.5",
        "recipes one by one: s smooth=False alpha=0.7",
        "instance-wise fallback: f smooth=True alpha=0.7",
    ]


def test_calibration_sizes_are_tried_on_the_best() -> None:
    space = make_space(1, calibration_sizes=(64, 256))
    sampler = BasicQuantSampler(space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(
            objective_of(space, lambda c: 0.5 + (c.calibration_size == 256)), n_trials=1
        )
    found = [space.config_from_params(trial.params) for trial in study.trials]
    sizes = [(config.calibration_size, bool(config.fallback_ops)) for config in found]
    assert sizes == [(64, True), (64, False), (256, False), (256, True)]


def test_ops_without_fallback_stay() -> None:
    space = make_space(2, (STATIC, STATIC_TENSOR))
    assert run(space, lambda config: 0.5) == ["default: ss", "op-type-wise: tt"]


def test_a_group_falls_back_together() -> None:
    space = make_space(3).group(tied=["op0", "op2"])
    order = run(space, lambda config: 0.5)
    # The group stands first; its two ops come as the letters in front.
    assert order[2:] == ["instance-wise fallback: ssf", "instance-wise fallback: ffs"]


def test_inc2_order() -> None:
    space = make_space(
        [("a", "Conv"), ("b", "MatMul")],
        (STATIC, STATIC_TENSOR, FP32),
        recipes={"r": (False, True)},
    )
    order = run(space, lambda config: 0.5, compat="inc2")
    assert order == [
        "baseline: ff r=False",
        "default: ss r=False",
        "all recipes: ss r=True",
        "op-type-wise: st r=False",
        "op-type-wise: ts r=False",
        "op-type-wise: tt r=False",
        "recipes one by one: tt r=True",
        "instance-wise fallback: tf r=True",
        "instance-wise fallback: ft r=True",
        "accumulated fallback: ff r=True",
    ]


def test_inc2_order_of_the_options() -> None:
    """By algorithm (minmax, kl, percentile), then by granularity, whatever the space's order."""
    activation = {name: TensorConfig("uint8", algorithm=name) for name in ("kl", "percentile")}
    percentile = OpConfig("static", activation["percentile"], STATIC.weight)
    kl_tensor = OpConfig("static", activation["kl"], STATIC_TENSOR.weight)
    options = (STATIC, percentile, STATIC_TENSOR, kl_tensor, STATIC_KL, FP32)
    space = make_space(1, options)
    sampler = BasicQuantSampler(space, compat="inc2", baseline=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective_of(space, lambda config: 0.5), n_trials=5)
    order = [space.config_from_params(trial.params)["op0"] for trial in study.trials]
    assert order == [STATIC, STATIC_TENSOR, STATIC_KL, kl_tensor, percentile]


def test_an_explicit_limit_holds_with_inc2_too() -> None:
    space = make_space([("a", "Conv"), ("b", "MatMul")], (STATIC, STATIC_TENSOR, STATIC_KL, FP32))
    limited = run(space, lambda config: 0.5, compat="inc2", max_op_type_trials=2)
    assert sum(line.startswith("op-type-wise") for line in limited) == 2
    free = run(space, lambda config: 0.5, compat="inc2")
    assert sum(line.startswith("op-type-wise") for line in free) == 8


def test_not_a_space_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"space must be a TuningSpace.*but got 'model\.onnx'"):
        BasicQuantSampler("model.onnx")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_op_type_trials": "many"}, "must be a number or None, but got 'many'"),
        ({"claim_timeout": -1}, "claim_timeout must not be negative"),
        ({"max_op_type_trials": -1}, "max_op_type_trials must not be negative, but got -1"),
        ({"compat": "inc3"}, "compat must be None or 'inc2', but got 'inc3'"),
        ({"when_blocked": "stop"}, "when_blocked must be"),
        ({"max_failures": 0}, "max_failures must be at least 1, but got 0"),
        ({"grace_period": -1}, "grace_period must not be negative"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BasicQuantSampler(make_space(1), **kwargs)
