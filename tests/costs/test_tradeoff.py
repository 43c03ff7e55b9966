"""Configurations between the cheapest and floats: each against trying all of them."""

from __future__ import annotations

import itertools
import random

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant.costs import Boundary
from optuna_quant.costs import CostTable
from optuna_quant.costs import tradeoff as tradeoff_module
from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.tradeoff import tradeoff
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


OPTIONS = (STATIC, DYNAMIC, FP32)
LABELS = [option.label for option in OPTIONS]


@st.composite
def problems(draw):
    names = [f"op{i}" for i in range(draw(st.integers(1, 5)))]
    ops = {name: {label: draw(st.integers(-3, 9)) for label in LABELS} for name in names}
    price = st.integers(0, 6)
    op = st.sampled_from([*names, "outside"])  # an op that the space does not have
    boundaries = draw(
        st.lists(
            st.builds(
                Boundary, op, st.lists(op, max_size=3).map(tuple), quantize=price, dequantize=price
            ),
            max_size=5,
        )
    )
    # In floats nothing is lost.
    weights = {
        name: {STATIC.label: draw(st.integers(1, 9)), DYNAMIC.label: draw(st.integers(1, 9))}
        for name in names
    }
    return CostTable("latency", "s", ops, tuple(boundaries), 2.0), weights


def every(space: TuningSpace) -> list[QuantConfig]:
    return [space.config_at(i) for i in range(space.size)]


def weight_of(config: QuantConfig, weights) -> float:
    return sum(weights.get(op, {}).get(option.label, 0.0) for op, option in config.ops.items())


def points(configs, table, weights) -> list[tuple[float, float]]:
    return [(table.cost(c), weight_of(c, weights)) for c in configs]


def hull(given_points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are best for some multiplier from 0 on, the cheapest first."""
    found: list[tuple[float, float]] = []
    for point in sorted(given_points):
        if found and point[1] >= found[-1][1]:
            continue
        while len(found) > 1 and _is_above(found[-1], found[-2], point):
            found.pop()
        found.append(point)
    return found


def _is_above(middle, left, right) -> bool:
    share = (middle[0] - left[0]) / (right[0] - left[0])
    return middle[1] > left[1] + share * (right[1] - left[1]) + 1e-9


@settings(max_examples=examples(150), deadline=None)
@given(problems(), st.floats(0.01, 20))
def test_each_multiplier_has_its_optimum(problem, multiplier):
    table, weights = problem
    space = make_space(len(table.ops), OPTIONS)
    inner = tradeoff_module._Problem.of(table, space, weights, {})
    chosen = inner.solve(multiplier)
    config = space.default().with_ops(
        {op: option for t, option in zip(space.tunables, chosen, strict=True) for op in t.ops}
    )
    best = min(table.cost(c) + multiplier * weight_of(c, weights) for c in every(space))
    found = table.cost(config) + multiplier * weight_of(config, weights)
    assert found == pytest.approx(best, abs=1e-4)


@settings(max_examples=examples(100), deadline=None)
@given(problems())
def test_the_ends_are_the_cheapest_and_the_one_that_weighs_least(problem):
    table, weights = problem
    space = make_space(len(table.ops), OPTIONS)
    found = points(tradeoff(table, space, weights), table, weights)
    all_points = points(every(space), table, weights)
    assert found[0][0] == pytest.approx(min(cost for cost, _ in all_points))
    assert found[-1][1] == pytest.approx(min(weight for _, weight in all_points))
    assert len({c.key for c in tradeoff(table, space, weights)}) == len(found)


@settings(max_examples=examples(100), deadline=None)
@given(problems())
def test_what_costs_more_weighs_less(problem):
    """So that a search can go along it; steps in between need not be optimal."""
    table, weights = problem
    space = make_space(len(table.ops), OPTIONS)
    inner = tradeoff_module._Problem.of(table, space, weights, {})
    solved = []
    for multiplier in inner.multipliers():
        chosen = inner.solve(multiplier)
        solved.append(
            space.default().with_ops(
                {op: o for t, o in zip(space.tunables, chosen, strict=True) for op in t.ops}
            )
        )
    found = points(solved, table, weights)
    assert all(b[0] >= a[0] - 1e-4 and b[1] <= a[1] + 1e-4 for a, b in itertools.pairwise(found))
    # Nothing is both cheaper and lighter than a point of it.
    everything = points(every(space), table, weights)
    for cost, weight in found[1:-1]:
        assert not any(c < cost - 1e-3 and w < weight - 1e-3 for c, w in everything)


@settings(max_examples=examples(60), deadline=None)
@given(problems())
def test_most_of_what_any_multiplier_gives_is_on_it(problem):
    """No budget gets nothing: the multipliers are dense enough for small problems."""
    table, weights = problem
    space = make_space(len(table.ops), OPTIONS)
    corners = hull(points(every(space), table, weights))
    found = points(tradeoff(table, space, weights), table, weights)
    range_of_costs = corners[-1][0] - corners[0][0]
    for cost, weight in corners:
        nearest = min(c for c, w in found if w <= weight + 1e-6)
        assert nearest - cost <= 0.9 * range_of_costs + 1e-6


def test_a_boundary_is_paid_once_for_several_consumers():
    """Three readers of one tensor: alone none is worth its quantization, together they are."""
    ops = {f"op{i}": {STATIC.label: 1.0, FP32.label: 2.0} for i in range(3)}
    weights = {op: {STATIC.label: 0.1} for op in ops}
    space = make_space(3)
    apart = tuple(Boundary("input", (op,), quantize=1.5) for op in ops)
    together = (Boundary("input", tuple(ops), quantize=1.5),)
    (only,) = tradeoff(CostTable("latency", "s", ops, apart), space, weights)
    assert only == space.fp32()
    found = tradeoff(CostTable("latency", "s", ops, together), space, weights)
    assert found[0] == space.default()
    assert found[-1] == space.fp32()


def test_a_reader_in_floats_has_its_producer_pay():
    ops = {
        "op0": {STATIC.label: 1.0, FP32.label: 2.0},
        "op1": {STATIC.label: 5.0, FP32.label: 0.0},
        "op2": {STATIC.label: 0.0, FP32.label: 9.0},
    }
    space = make_space(3)
    weights = {op: {STATIC.label: 0.1} for op in ops}
    for price, first in ((0.5, STATIC), (1.5, FP32)):
        boundaries = (Boundary("op0", ("op1", "op2"), dequantize=price),)
        table = CostTable("latency", "s", ops, boundaries)
        assert tradeoff(table, space, weights)[0]["op0"] == first
    # A reader that the space does not have runs in floats.
    outside = CostTable("latency", "s", ops, (Boundary("op0", ("outside",), dequantize=1.5),))
    assert tradeoff(outside, space, weights)[0]["op0"] == FP32


def test_tied_ops_change_together_and_pay_nothing_between_them():
    ops = {f"op{i}": {STATIC.label: 1.0, FP32.label: 2.0} for i in range(4)}
    boundaries = tuple(
        Boundary(f"op{i}", (f"op{i + 1}",), quantize=5.0, dequantize=5.0) for i in range(3)
    )
    table = CostTable("latency", "s", ops, boundaries)
    weights = {"op0": {STATIC.label: 1.0}, "op3": {STATIC.label: 0.01}}
    space = make_space(4).group({"all": ["op0", "op1", "op2", "op3"]})
    found = tradeoff(table, space, weights)
    assert [len(config.quantized_ops) for config in found] == [4, 0]
    assert [table.cost(config) for config in found] == [4.0, 8.0]


def test_an_op_in_a_group_has_costs_to_those_outside():
    ops = {f"op{i}": {STATIC.label: 1.0, FP32.label: 2.0} for i in range(3)}
    boundary = Boundary("op0", ("op1", "op2"), quantize=0.3, dequantize=0.4)
    table = CostTable("latency", "s", ops, (boundary,))
    space = make_space(3).group({"pair": ["op0", "op1"]})
    weights = {"op0": {STATIC.label: 0.01}, "op2": {STATIC.label: 1.0}}
    found = tradeoff(table, space, weights)
    assert found[0] == space.default()
    only_pair = space.default().with_fallback("op2")
    assert only_pair in found
    assert table.cost(only_pair) == pytest.approx(4.4)


@settings(max_examples=examples(60), deadline=None)
@given(problems(), st.data())
def test_forbidden_options_are_never_used(problem, data):
    table, weights = problem
    space = make_space(len(table.ops), OPTIONS)
    forbidden = {
        op: data.draw(st.lists(st.sampled_from(LABELS), max_size=2, unique=True))
        for op in table.ops
    }
    found = tradeoff(table, space, weights, forbidden=forbidden)
    assert found
    for config in found:
        assert all(o.label not in forbidden[op] for op, o in config.ops.items())
    allowed = [
        c for c in every(space) if all(o.label not in forbidden[op] for op, o in c.ops.items())
    ]
    assert table.cost(found[0]) == pytest.approx(min(map(table.cost, allowed)))


def test_an_op_without_any_option_left_is_named():
    table = CostTable("latency", "s", {"op0": {STATIC.label: 1.0, FP32.label: 2.0}})
    with pytest.raises(ValueError, match="No option of op 'op0' is left"):
        tradeoff(table, make_space(1), {}, forbidden={"op0": [STATIC.label, FP32.label]})


def test_an_option_that_the_table_lacks_is_named():
    table = CostTable("latency", "s", {"op0": {STATIC.label: 1.0}})
    with pytest.raises(ValueError, match="no cost for op 'op0' as 'fp32'"):
        tradeoff(table, make_space(1), {})


def test_ops_that_must_be_quantized():
    ops = {"op0": {STATIC.label: 5.0, DYNAMIC.label: 6.0, FP32.label: 1.0}}
    table = CostTable("latency", "s", ops, (Boundary("input", ("op0",), quantize=9.0),))
    weights = {"op0": {STATIC.label: 2.0, DYNAMIC.label: 1.0}}
    found = tradeoff(table, make_space(1, (STATIC, DYNAMIC)), weights)
    assert [config["op0"] for config in found] == [STATIC, DYNAMIC]


def test_without_weights_there_is_one():
    table = CostTable("latency", "s", {"op0": {STATIC.label: 1.0, FP32.label: 2.0}})
    assert tradeoff(table, make_space(2), {}) == [make_space(2).default()]


def large(count: int) -> tuple[CostTable, TuningSpace, dict[str, dict[str, float]]]:
    rng = random.Random(0)
    options = (STATIC, STATIC_TENSOR, DYNAMIC, FP32)
    space = make_space(count, options)

    def scale(option: OpConfig) -> float:
        return rng.random() if option.is_quantized else 1.0 + rng.random()

    names = list(space.default().ops)
    ops = {name: {o.label: scale(o) for o in options} for name in names}
    weights = {
        name: {o.label: 10 ** rng.uniform(-6, 0) for o in options if o.is_quantized}
        for name in names
    }
    boundaries = tuple(
        Boundary(a, (b, rng.choice(names)), 0.1 * rng.random(), 0.1 * rng.random())
        for a, b in itertools.pairwise(names)
    )
    return CostTable("latency", "s", ops, boundaries), space, weights


def test_hundreds_of_ops_take_one_cut_for_each_multiplier(monkeypatch):
    """No integer program: it takes seconds at that size."""
    table, space, weights = large(500)
    cuts = []
    cut = tradeoff_module._Problem._cut
    monkeypatch.setattr(
        tradeoff_module._Problem, "_cut", lambda self, *args: cuts.append(1) or cut(self, *args)
    )
    monkeypatch.setattr(
        "scipy.optimize.milp", lambda *args, **kwargs: pytest.fail("an integer program")
    )
    found = tradeoff(table, space, weights)
    assert len(cuts) <= 50
    costs = [table.cost(config) for config in found]
    sums = [weight_of(config, weights) for config in found]
    assert costs[0] == min(costs)
    assert sums[-1] == 0.0
    # Small steps: no gap that a budget would fall into.
    steps = [b - a for a, b in itertools.pairwise(costs)]
    assert max(steps) < 0.1 * (costs[-1] - costs[0])
    assert found == tradeoff(table, space, weights)


def test_near_the_integer_programs_answer_for_the_same_budget():
    table, space, weights = large(60)
    found = points(tradeoff(table, space, weights), table, weights)
    spread = found[-1][0] - found[0][0]
    for budget in (0.01, 0.1, 1.0):
        best = table.cost(cheapest(table, space, weights=weights, bound=budget))
        nearest = min(cost for cost, weight in found if weight <= budget)
        assert best - 0.02 * spread <= nearest <= best + 0.1 * spread
