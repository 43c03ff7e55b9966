"""Which ops are worth quantizing, and what each gains."""

from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import make_space

from optuna_quant.costs import Boundary
from optuna_quant.costs import CostTable
from optuna_quant.costs import op_gains
from optuna_quant.costs.gain_per_op import OpGain
from optuna_quant.costs.gain_per_op import by_op
from optuna_quant.costs.gain_per_op import left_out_by_cost
from optuna_quant.costs.gain_per_op import without
from optuna_quant.costs.gain_per_op import worse_ops
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


OPTIONS = (STATIC, DYNAMIC, FP32)


def table_of(*quantized: float, boundaries: tuple[Boundary, ...] = ()) -> CostTable:
    ops = {
        f"op{i}": {STATIC.label: cost, DYNAMIC.label: cost + 1, FP32.label: 1.0}
        for i, cost in enumerate(quantized)
    }
    return CostTable("latency", "s", ops, boundaries)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_gain_is_the_difference_of_two_models(data):
    count = data.draw(st.integers(1, 4))
    cost = st.integers(0, 9)
    op = st.sampled_from([f"op{i}" for i in range(count)])
    drawn = data.draw(
        st.lists(
            st.builds(Boundary, op, st.lists(op, max_size=3).map(tuple), cost, cost), max_size=4
        )
    )
    # No op reads what it makes itself.
    boundaries = [b for b in dict.fromkeys(drawn) if b.producer not in b.consumers]
    table = table_of(*(data.draw(cost) for _ in range(count)), boundaries=tuple(boundaries))
    space = make_space(count, OPTIONS)
    config = space.config_at(data.draw(st.integers(0, space.size - 1)))
    for name, gain in op_gains(table, space, config).items():
        floats = table.cost(config.with_ops({name: FP32}))
        quantized = min(table.cost(config.with_ops({name: o})) for o in (STATIC, DYNAMIC))
        assert gain.gain == pytest.approx(floats - quantized)
        # What is no less than nothing stays so, whatever the neighbours are.
        assert gain.floats >= 1.0
        assert gain.quantized >= 0.0
    for name, gain in op_gains(table, space, config, own=True).items():
        if config[name].is_quantized:
            floats = table.cost(config.with_ops({name: FP32}))
            assert gain.gain == pytest.approx(floats - table.cost(config))
            assert gain.label == config[name].label


def test_ops_that_lose_are_found_and_those_within_noise_are_not():
    space = make_space(4, OPTIONS)
    worse = worse_ops(table_of(0.5, 3.0, 1.001, 0.9), space)
    assert list(worse) == ["op1"]
    assert str(worse["op1"]) == "3 s against 1 s"
    left_out = left_out_by_cost(worse["op1"])
    assert left_out.reason == "slower in INT8 here: 3 s against 1 s"


def test_bits_of_what_is_left_out_are_named():
    option = OpConfig("weight_only", weight=TensorConfig("uint4", "sym", "per_channel"))
    gain = OpGain("op1", "MatMul", "latency", 1.0, 3.0, option.label)
    assert left_out_by_cost(gain).reason == "slower in INT4 here: 3 s against 1 s"


def test_what_is_faster_only_together_is_kept_together():
    # Quantizing one of the two costs a boundary that is more than it gains.
    between = (Boundary("op0", ("op1",), quantize=1.0, dequantize=1.0),)
    assert not worse_ops(table_of(0.5, 0.5, boundaries=between), make_space(2, OPTIONS))
    assert list(worse_ops(table_of(0.5, 1.6, boundaries=between), make_space(2, OPTIONS))) == [
        "op0",
        "op1",
    ]


def test_conversions_that_quantizing_saves_are_a_price_of_floats():
    # Both neighbours are quantized: in floats op1 needs two conversions.
    between = (
        Boundary("op0", ("op1",), quantize=0.4, dequantize=0.4),
        Boundary("op1", ("op2",), quantize=0.3, dequantize=0.3),
    )
    space = make_space(3, OPTIONS)
    gains = op_gains(table_of(0.5, 0.1, 0.5, boundaries=between), space, space.default())
    assert (gains["op1"].floats, gains["op1"].quantized) == pytest.approx((1.7, 0.1))


def test_a_group_gains_what_its_ops_gain():
    space = make_space(3, OPTIONS).group({"both": ["op0", "op2"]})
    gains = op_gains(table_of(0.5, 3.0, 0.25), space, space.default())
    assert gains["both"].gain == pytest.approx(1.25)
    assert list(worse_ops(table_of(0.5, 3.0, 0.25), space)) == ["op1"]


def test_ops_of_a_group_have_a_share_each_and_are_left_out_together():
    space = make_space([("op0", "Conv"), ("op1", "Conv"), ("op2", "Conv")], OPTIONS)
    space = space.group(pair=["op0", "op2"])
    gains = op_gains(table_of(0.5, 0.25, 0.1), space, space.default())
    shares = by_op(gains, space)
    assert list(shares) == ["op0", "op2", "op1"]
    assert shares["op0"].gain == shares["op2"].gain == pytest.approx(gains["pair"].gain / 2)
    assert shares["op1"].gain == gains["op1"].gain
    for named in (["op2"], ["pair"], ["op0", "op2"]):
        assert [tunable.name for tunable in without(space, named).tunables] == ["op1"]
