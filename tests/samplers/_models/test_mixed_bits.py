"""Spaces in which ops may have 8 bits or 4: the search mixes them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Any

from costed_backend import CostedBackend
from fake_backend import FP32_BYTES
from fake_backend import FakeModel
import numpy as np
import pytest
from spaces import ACT
from spaces import CHANNEL
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import tune
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs.known import fallback_table
from optuna_quant.samplers._models.op_sensitivities import option_kinds
from optuna_quant.samplers._models.op_sensitivities import sensitivity_matrix
from optuna_quant.samplers._models.scored_options import scored_options
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


W8 = OpConfig("weight_only", weight=CHANNEL)
W4 = OpConfig("weight_only", weight=TensorConfig("int4", "sym", "per_channel"))
W4_TENSOR = OpConfig("weight_only", weight=TensorConfig("int4", "sym", "per_tensor"))
STATIC4 = OpConfig("static", ACT, W4.weight)

# What each op loses with 4 bits; with 8 it is a sixteenth. The criterion allows 0.05.
LOSSES = {"a": 0.002, "b": 0.2, "c": 0.004, "d": 0.09, "e": 0.01, "f": 0.05, "g": 0.6, "h": 0.003}
SIZES = {"a": 900, "b": 400, "c": 200, "d": 500, "e": 300, "f": 350, "g": 250, "h": 100}
TOLERANCE = 0.05


class MixedBackend(CostedBackend):
    """Ops of several sizes, which lose more with fewer bits."""

    def __init__(self, options: Sequence[OpConfig], *, is_scored: bool = True) -> None:
        super().__init__(LOSSES, {}, options=options)
        self._is_scored = is_scored

    def accuracy(self, config: QuantConfig) -> float:
        return round(self.fp32 - sum(_loss(op, o) for op, o in config.ops.items()), 10)

    def quantize(self, config: QuantConfig) -> FakeModel:
        model = super().quantize(config)
        return _Sized(model.config, model.accuracy, model.fingerprint)

    def counted_costs(self, space: TuningSpace) -> Costs:
        return Costs({"size": _sizes(space)})

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        if not self._is_scored:
            return {}
        return {SensitivityKind.BEST: SensitivityFactory(lambda outputs: _scores)}


class _Sized(FakeModel):
    @property
    def nbytes(self) -> int:
        return round(_size(self.config))


def _scores(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    """Right about the bits, and off by a factor for each op."""
    return {op: _loss(op, config.ops[op]) * (1 + i % 3) / 2 for i, op in enumerate(ops)}


def _loss(op: str, option: OpConfig) -> float:
    if not option.is_quantized:
        return 0.0
    assert option.weight is not None
    better = 0.02 if option.weight.algorithm == "gptq" else 1.0
    return better * LOSSES[op] * {4: 1.0, 8: 1 / 16}[option.weight.bits]


def _size(config: QuantConfig) -> float:
    floats = sum(SIZES.values())
    return FP32_BYTES - floats + sum(_bytes(op, option) for op, option in config.ops.items())


def _bytes(op: str, option: OpConfig) -> float:
    bits = 32 if option.weight is None else option.weight.bits
    return SIZES[op] * bits / 32


def _sizes(space: TuningSpace) -> CostTable:
    ops = {
        op: {option.label: _bytes(op, option) for option in (*t.options, FP32)}
        for t in space.tunables
        for op in t.ops
    }
    return CostTable("size", "bytes", ops, fixed=FP32_BYTES - sum(SIZES.values()))


def _least_size() -> float:
    found = (
        QuantConfig(dict(zip(LOSSES, options, strict=True)))
        for options in itertools.product((W8, W4, FP32), repeat=len(LOSSES))
    )
    fine = (c for c in found if sum(_loss(op, o) for op, o in c.ops.items()) <= TOLERANCE)
    return min(map(_size, fine))


def _tuned(backend: MixedBackend, **kwargs: Any) -> Any:
    return tune(
        backend=backend,
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=TOLERANCE),
        tuning_criterion=TuningCriterion(objective="size", **kwargs),
        measure_gain=False,
        verify=False,
    )


# Each option first and last once; the others are slow.
ORDERS = [
    pytest.param(options, marks=() if i in (0, 3, 4) else pytest.mark.slow)
    for i, options in enumerate(itertools.permutations((W8, W4, FP32)))
]


@pytest.mark.parametrize("options", ORDERS)
def test_bits_are_mixed_whatever_the_order_of_the_options(options: Sequence[OpConfig]) -> None:
    result = _tuned(MixedBackend(options), max_trials=8)
    assert result.met
    assert {o.weight.bits for o in result.config.ops.values() if o.weight} == {4, 8}
    assert result.cost <= 1.05 * _least_size()


@pytest.mark.parametrize("options", [(W8, W4, FP32), (W4, W8, FP32)])
def test_bits_are_mixed_without_sensitivities(options: Sequence[OpConfig]) -> None:
    result = _tuned(MixedBackend(options, is_scored=False), max_trials=12)
    assert result.met
    assert result.cost <= 1.1 * _least_size()


def test_front_has_both_bits() -> None:
    result = _tuned(MixedBackend((W8, W4, FP32)), strategy="pareto", max_trials=15)
    assert result.met
    assert result.cost <= 1.03 * _least_size()


def _scored(options: Sequence[OpConfig], cost: Mapping[OpConfig, float] | None = None) -> Any:
    tunable = Tunable("op", "Gemm", ("op",), tuple(options))
    space = TuningSpace((tunable,))
    if cost is None:
        return scored_options(tunable, fallback_table(space))
    table = {option.label: cost.get(option, 1.0) for option in options}
    return scored_options(tunable, CostTable("size", "bytes", {"op": table}))


def test_options_of_fewer_bits_are_scored_where_they_are_cheaper() -> None:
    assert _scored((W8, W4, FP32), {W8: 8, W4: 4}) == (W8, W4)
    assert _scored((W8, W4, FP32), {W8: 8, W4: 8}) == (W8,)
    assert _scored((W8, W4, FP32)) == (W8,)


def test_weights_alone_lose_less_at_the_same_cost() -> None:
    assert _scored((W8, STATIC4, W4, FP32), {W8: 8, STATIC4: 4, W4: 4}) == (W8, W4)
    assert _scored((W8, STATIC4, W4, FP32), {W8: 8, STATIC4: 3, W4: 4}) == (W8, STATIC4, W4)


def test_of_options_that_differ_in_granularity_the_finest_is_scored() -> None:
    costs = {W8: 8, W4: 4, W4_TENSOR: 4}
    for options in ((W8, W4, W4_TENSOR, FP32), (W8, W4_TENSOR, W4, FP32)):
        assert _scored(options, costs) == (W8, W4)
    assert _scored((W4_TENSOR, W4, W8, FP32), costs) == (W4, W8)


def test_groups_of_other_sizes_are_told_apart_where_they_cost_another() -> None:
    fine, coarse = (
        OpConfig("weight_only", weight=TensorConfig("int4", "sym", "per_group", "rtn", size))
        for size in (32, 128)
    )
    assert _scored((fine, coarse, FP32), {fine: 5, coarse: 4}) == (fine, coarse)
    assert _scored((fine, coarse, FP32), {fine: 4, coarse: 4}) == (fine,)


def test_each_precision_is_scored_before_other_algorithms() -> None:
    algorithms = [
        OpConfig("static", TensorConfig("uint8", algorithm=f"method{i}"), CHANNEL)
        for i in range(8)
    ]
    costs = dict.fromkeys(algorithms, 8.0) | {W4: 4.0}
    assert _scored((*algorithms, W4, FP32), costs) == (*algorithms[:5], W4)


def test_algorithms_of_weights_alone_are_told_apart() -> None:
    rtn, gptq, wide = (
        OpConfig(
            "weight_only",
            weight=TensorConfig("int4", "asym", "per_group", name, size),
            accuracy_level=4,
        )
        for name, size in (("rtn", 32), ("gptq", 32), ("gptq", 128))
    )
    # At another accuracy level it is as exact, but for rounding.
    floats = OpConfig("weight_only", weight=rtn.weight, accuracy_level=0)
    costs = {rtn: 5.0, gptq: 5.0, floats: 5.0, wide: 4.0}
    assert _scored((rtn, gptq, wide, floats, FP32), costs) == (rtn, gptq, wide)
    kinds = option_kinds([Tunable("op", "Gemm", ("op",), (rtn, gptq, wide, floats, FP32))])
    assert kinds.tolist() == [[-1, 0, 0, -1, -1]]


def test_the_better_algorithm_is_chosen_among_equally_large_ones() -> None:
    exact = OpConfig("weight_only", weight=TensorConfig("int4", "sym", "per_channel", "gptq"))
    result = _tuned(MixedBackend((W8, W4, exact, FP32)), max_trials=8)
    assert result.met
    assert set(result.config.ops.values()) == {exact}


def test_options_of_8_bits_are_scored_as_ever() -> None:
    options = (STATIC, STATIC_KL, STATIC_TENSOR, DYNAMIC, FP32)
    assert _scored(options) == (STATIC, STATIC_KL, DYNAMIC)


def test_bits_have_a_factor_of_their_own() -> None:
    tunable = Tunable("op", "Gemm", ("op",), (STATIC, STATIC_KL, STATIC4, FP32))
    other = Tunable("add", "Add", ("add",), (OpConfig("static", ACT), FP32))
    kinds = option_kinds([tunable, other])
    assert kinds.tolist() == [[-1, 0, 1, -1], [-1, -1, -1, -1]]


def test_what_is_not_scored_is_like_what_has_as_many_bits() -> None:
    tunable = Tunable("op", "Gemm", ("op",), (W8, W4_TENSOR, W4, FP32))
    scores = {"op": {W8.label: 0.001, W4.label: 0.1}}
    found, _ = sensitivity_matrix([tunable], scores)
    np.testing.assert_allclose(found, [[0.001, 0.15, 0.1, 0.0]])
    unscored, _ = sensitivity_matrix([tunable], {})
    assert unscored[0, 2] == unscored[0, 1] > unscored[0, 0] > 0


class _WeightsAlone:
    """All of each op's error comes from its weights; one op is no better with 8 bits."""

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        return {op: 0.6 if op == "g" else _loss(op, config.ops[op]) for op in ops}

    def score_with_weights(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> tuple[list[Mapping[str, float]], Mapping[str, float]]:
        return [self(config, ops) for config in configs], dict.fromkeys(ops, 1.0)

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        return float(configs)


class HardBackend(MixedBackend):
    def accuracy(self, config: QuantConfig) -> float:
        lost = sum(_WeightsAlone()(config, config.quantized_ops).values())
        return round(self.fp32 - lost, 10)

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        return {SensitivityKind.BEST: SensitivityFactory(lambda outputs: _WeightsAlone())}


@pytest.mark.parametrize(
    ("options", "is_said"),
    [
        ((W4, FP32), True),
        ((W4_TENSOR, W4, FP32), True),
        ((W4, W8, FP32), False),
        ((W8, W4, FP32), True),
    ],
)
def test_that_there_are_no_more_bits_is_said_only_where_it_is_true(
    options: Sequence[OpConfig], is_said: bool
) -> None:
    result = _tuned(HardBackend(options), max_trials=12)
    assert "g" in result.config.fallback_ops
    said = str(result.explanation)
    assert "their weights cause" in said or "its weights cause" in said
    assert ("no option with more than" in said) == is_said
