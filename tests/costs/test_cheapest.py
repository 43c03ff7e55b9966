"""The cheapest configuration by a table: both ways to find it against trying one after another."""

from __future__ import annotations

from collections.abc import Iterator
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
from optuna_quant.costs import enumerated
from optuna_quant.costs.cheapest import cheapest
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


OPTIONS = (STATIC, DYNAMIC, FP32)
LABELS = [option.label for option in OPTIONS]
COSTS = st.integers(-3, 9)


@st.composite
def problems(draw, *, negative_boundaries: bool = True):
    names = [f"op{i}" for i in range(draw(st.integers(1, 5)))]
    ops = {name: {label: draw(COSTS) for label in LABELS} for name in names}
    price = COSTS if negative_boundaries else st.integers(0, 9)
    # "outside" is an op that the space does not have.
    op = st.sampled_from([*names, "outside"])
    boundaries = draw(
        st.lists(
            st.builds(
                Boundary, op, st.lists(op, max_size=3).map(tuple), quantize=price, dequantize=price
            ),
            max_size=5,
        )
    )
    weights = {name: {label: draw(st.integers(0, 4)) for label in LABELS} for name in names}
    return CostTable("latency", "s", ops, tuple(boundaries), draw(COSTS)), weights


def every(space: TuningSpace) -> list[QuantConfig]:
    return [space.config_at(i) for i in range(space.size)]


def weight_of(config: QuantConfig, weights) -> float:
    return sum(weights[op][option.label] for op, option in config.ops.items())


@pytest.fixture(
    params=["all at once", pytest.param("integer program", marks=pytest.mark.slow)], scope="module"
)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the cheapest is found: in small spaces all are tried at once, if nothing is changed."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "integer program":
            patch.setattr(enumerated, "_MOST_CONFIGURATIONS", 0)
        yield request.param


@pytest.mark.usefixtures("way")
@settings(max_examples=examples(150), deadline=None)
@given(problems(), st.integers(0, 20))
def test_agrees_with_trying_all_of_them(problem, bound):
    table, weights = problem
    space = make_space(len(table.ops), OPTIONS)
    allowed = [c for c in every(space) if weight_of(c, weights) <= bound]
    if not allowed:
        with pytest.raises(ValueError, match="smallest is"):
            cheapest(table, space, weights=weights, bound=bound)
        return
    best = min((table.cost(c), weight_of(c, weights), len(c.fallback_ops)) for c in allowed)
    found = cheapest(table, space, weights=weights, bound=bound)
    assert (
        table.cost(found),
        weight_of(found, weights),
        len(found.fallback_ops),
    ) == pytest.approx(best)


@pytest.mark.usefixtures("way")
@settings(max_examples=examples(50), deadline=None)
@given(problems())
def test_without_weights_of_equally_cheap_ones_the_one_with_fewest_fallbacks(problem):
    table, _ = problem
    space = make_space(len(table.ops), OPTIONS)
    best = min((table.cost(c), len(c.fallback_ops)) for c in every(space))
    found = cheapest(table, space)
    assert (table.cost(found), len(found.fallback_ops)) == pytest.approx(best)


@pytest.mark.usefixtures("way")
@settings(max_examples=examples(50), deadline=None)
@given(problems(), st.data())
def test_fixed_and_forbidden_options(problem, data):
    table, _ = problem
    space = make_space(len(table.ops), OPTIONS)
    op = data.draw(st.sampled_from(sorted(table.ops)))
    label = data.draw(st.sampled_from(LABELS))
    fixed = cheapest(table, space, fixed={op: label})
    assert fixed[op].label == label
    without = cheapest(table, space, forbidden={op: [label]})
    assert without[op].label != label
    for found, allowed in (
        (fixed, [c for c in every(space) if c[op].label == label]),
        (without, [c for c in every(space) if c[op].label != label]),
    ):
        assert table.cost(found) == pytest.approx(min(map(table.cost, allowed)))


def test_tied_ops_have_one_option():
    table = CostTable(
        "latency",
        "s",
        {"op0": {STATIC.label: 1, FP32.label: 2}, "op1": {STATIC.label: 5, FP32.label: 2}},
    )
    space = make_space(2)
    assert len(cheapest(table, space).fallback_ops) == 1
    tied = space.group({"both": ["op0", "op1"]})
    assert cheapest(table, tied) == tied.fp32()


def test_what_it_costs_to_change_precision_outweighs_a_small_gain():
    ops = {
        f"op{i}": {STATIC.label: 1.0, FP32.label: 1.0 + gain} for i, gain in enumerate([3, 0.5])
    }
    space = make_space(2)
    free = CostTable("latency", "s", ops)
    assert not cheapest(free, space).fallback_ops
    paid = CostTable("latency", "s", ops, (Boundary("input", ("op1",), quantize=0.75),))
    assert cheapest(paid, space).fallback_ops == ("op1",)


def test_the_integer_program_finds_the_same(monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(1)
    names = [f"op{i}" for i in range(5)]
    space = make_space(len(names), OPTIONS)
    for _ in range(10):
        # No two configurations cost the same.
        ops = {name: {label: rng.random() for label in LABELS} for name in names}
        weights = {name: {label: rng.random() for label in LABELS} for name in names}
        boundaries = tuple(
            Boundary(a, (b, names[-1]), 0.2 * rng.random(), 0.2 * rng.random())
            for a, b in itertools.pairwise(names[:-1])
        )
        table = CostTable("latency", "s", ops, boundaries)
        tried = cheapest(table, space, weights=weights, bound=2.0)
        with monkeypatch.context() as patch:
            patch.setattr(enumerated, "_MOST_CONFIGURATIONS", 0)
            solved = cheapest(table, space, weights=weights, bound=2.0)
        assert tried == solved


def test_many_ops_with_one_option_each():
    table = CostTable(
        "latency", "s", {f"op{i}": {STATIC.label: 1, FP32.label: 2} for i in range(99)}
    )
    space = make_space(99)
    fixed = {name: FP32.label for name in table.ops if name != "op7"}
    assert cheapest(table, space, fixed=fixed).quantized_ops == ("op7",)


@pytest.mark.parametrize("count", [150, pytest.param(300, marks=pytest.mark.slow)])
def test_large_ones_are_solved_within_the_bound_and_the_same_each_time(count: int):
    rng = random.Random(0)
    options = (STATIC, STATIC_TENSOR, DYNAMIC, FP32)
    space = make_space(count, options)
    ops, weights = {}, {}
    for name in space.default().ops:
        ops[name] = {o.label: rng.random() for o in options}
        weights[name] = {o.label: rng.random() * o.is_quantized for o in options}
    names = list(ops)
    boundaries = tuple(
        Boundary(a, (b,), 0.1 * rng.random(), 0.1 * rng.random())
        for a, b in itertools.pairwise(names)
    )
    table = CostTable("latency", "s", ops, boundaries)
    found = cheapest(table, space, weights=weights, bound=count / 10)
    assert weight_of(found, weights) <= count / 10 + 1e-6
    assert found == cheapest(table, space, weights=weights, bound=count / 10)
    free = cheapest(table, space)
    assert table.cost(free) < table.cost(found) < table.cost(space.fp32())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bound": 1.0}, "give weights"),
        ({"weights": {}, "bound": float("nan")}, "got nan"),
        ({"weights": {"op0": {STATIC.label: float("inf")}}}, "weight of op 'op0'"),
        ({"fixed": {"op9": STATIC.label}}, "'op9'"),
        ({"forbidden": {"op0": ["int3"]}}, "'int3'"),
        ({"forbidden": {"op0": [STATIC.label, FP32.label]}}, "op 'op0' is left"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    table = CostTable("latency", "s", {"op0": {STATIC.label: 1, FP32.label: 2}})
    with pytest.raises(ValueError, match=message):
        cheapest(table, make_space(2), **arguments)


def test_an_option_that_the_table_lacks_is_named():
    table = CostTable("latency", "s", {"op0": {STATIC.label: 1.0}})
    with pytest.raises(ValueError, match="no cost for op 'op0' as 'fp32'"):
        cheapest(table, make_space(1))
