"""What a search is to make small: how it is said, what it costs, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import pickle
from typing import Any

import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import make_space

from optuna_quant.costs import Boundary
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs import KnownObjective
from optuna_quant.costs import as_costs
from optuna_quant.costs import as_objective
from optuna_quant.costs.objective import show_measure
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig


SPACE = make_space(3, (STATIC, DYNAMIC, FP32))
LATENCY = CostTable(
    "latency",
    "s",
    {
        f"op{i}": {STATIC.label: 1e-3 * (i + 1), DYNAMIC.label: 2e-3, FP32.label: 2e-3}
        for i in range(3)
    },
    (Boundary("op0", ("op1",), 1e-4, 2e-4),),
    fixed=1e-3,
)
SIZE = CostTable(
    "size",
    "bytes",
    {f"op{i}": {STATIC.label: 10, DYNAMIC.label: 10, FP32.label: 40} for i in range(3)},
)
COSTS = Costs({"latency": LATENCY, "size": SIZE})


@pytest.mark.parametrize(
    ("value", "name", "measures"),
    [
        ("latency", "latency", ("latency",)),
        ("size", "size", ("size",)),
        ("model_size", "size", ("size",)),
        ("fallback_ops", "ops", ("ops",)),
        ({"latency": 0.7, "model_size": 0.3}, "latency=0.7,size=0.3", ("latency", "size")),
        ("latency=0.7, size=0.3", "latency=0.7,size=0.3", ("latency", "size")),
        ({"latency": 1, "size": 0}, "latency", ("latency",)),
    ],
)
def test_is_said_in_several_ways(value, name, measures):
    objective = as_objective(value)
    assert (objective.name, objective.measures) == (name, measures)
    assert as_objective(objective) is objective
    assert pickle.loads(pickle.dumps(objective)) == objective
    assert as_objective(objective.name) == objective


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("latncy", "latency, size, ops.*'latncy'.*Did you mean 'latency'"),
        ("performance", "Did you mean 'latency'"),
        ("footprint", "Did you mean 'size'"),
        ({"latency": -1}, "weight of 'latency'.*-1"),
        ({"latency": "much"}, "weight of 'latency'.*'much'"),
        ({"speed": 1}, "'speed'"),
        ({"size": 1, "model_size": 1}, "'size' has two weights"),
        ({"latency": 0}, "none is above 0"),
        ({}, "none is above 0"),
        ("latency=much", "written as latency=0.7,size=0.3"),
        (7, "got 7"),
        (None, "got None"),
    ],
)
def test_nonsense_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        as_objective(value)


def test_what_is_not_known_is_infinite():
    assert as_objective("latency").cost({}, {}) == float("inf")
    weighted = as_objective({"latency": 1, "size": 1})
    assert weighted.cost({"latency": 1, "size": 1}, {"latency": 1}) == float("inf")
    assert weighted.cost({"latency": 1}, {"latency": 1, "size": 1}) == float("inf")


def test_weights_are_relative_to_fp32():
    weighted = as_objective({"latency": 7, "size": 3})
    fp32 = {"latency": 2.0, "size": 100.0}
    assert weighted.cost(fp32, fp32) == pytest.approx(1)
    assert weighted.cost({"latency": 1.0, "size": 25.0}, fp32) == pytest.approx(0.425)
    assert weighted.show(0.425) == "0.425 of FP32"


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        ("latency", 0.00046, "0.46 ms"),
        ("latency", 1.234, "1.23 s"),
        ("latency", 12e-6, "12 us"),
        ("latency", 0.9996, "1 s"),
        ("size", 59_600, "59.6 kB"),
        ("ops", 12, "12 ops in fallback"),
        ("ops", 1, "1 op in fallback"),
        ("multiply_adds", 1.25e9, "1.25 G multiply-adds"),
        ("bit_operations", 8e10, "80 G bit operations"),
    ],
)
def test_costs_are_shown_with_their_units(measure, value, text):
    assert show_measure(measure, value) == text


def every() -> list[QuantConfig]:
    return [SPACE.config_at(i) for i in range(SPACE.size)]


@pytest.mark.parametrize(
    "value", ["latency", "size", "ops", {"latency": 2, "size": 1}, {"ops": 1, "size": 2}]
)
def test_the_table_of_an_objective_gives_its_costs(value):
    known = KnownObjective(as_objective(value), SPACE, COSTS)
    table = known.table
    assert table is not None
    for config in every():
        assert table.cost(config) == pytest.approx(known.of(config))
    assert known.of(SPACE.fp32()) == pytest.approx(known.fp32_cost)


def test_a_function_is_exact_and_its_table_has_what_each_option_changes():
    def heat(config: QuantConfig) -> float:
        count = len(config.quantized_ops)
        return 10.0 - count - (count == 3)

    known = KnownObjective(as_objective(heat), SPACE)
    assert known.name == "heat"
    assert known.of(SPACE.default()) == 6
    assert known.show(6) == "6 (heat)"
    table = known.table
    assert table is not None
    assert table.cost(SPACE.fp32()) == 10
    assert table.cost(SPACE.default()) == 7  # As a sum of single changes.


def test_a_function_must_give_a_number():
    known = KnownObjective(as_objective(lambda config: float("nan")), SPACE)
    with pytest.raises(ValueError, match="'own' must give a finite number"):
        known.of(SPACE.default())


def test_an_object_of_the_users_may_be_an_objective():
    class Energy:
        name = "energy"
        measures = ("latency", "size")

        def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
            return 3 * measures["latency"] + measures["size"] / fp32["size"]

        def show(self, cost: float) -> str:
            return f"{cost:.2f} J"

    known = KnownObjective(as_objective(Energy()), SPACE, COSTS)
    assert known.of(SPACE.fp32()) == pytest.approx(3 * 7e-3 + 1)
    assert known.show(1.0) == "1.00 J"
    assert known.table is not None
    assert known.table.cost(SPACE.fp32()) == pytest.approx(known.fp32_cost)
    # What it looks for and does not find is not known.
    assert KnownObjective(as_objective(Energy()), SPACE).of(SPACE.fp32()) == float("inf")


def test_ops_that_the_space_lacks_run_in_fp32():
    narrow = make_space(2, (STATIC, DYNAMIC, FP32))
    known = KnownObjective(as_objective("latency"), narrow, COSTS)
    config = SPACE.default().with_fallback("op2")
    assert known.of(narrow.default()) == pytest.approx(LATENCY.cost(config))


# The costs that a user gives.


def test_costs_are_given_as_a_file_a_table_or_a_function(tmp_path):
    COSTS.save(tmp_path / "costs.json")
    read = as_costs(tmp_path / "costs.json", SPACE)
    assert dict(read.tables) == dict(COSTS.tables)
    assert as_costs(COSTS, SPACE) is COSTS
    assert as_costs(LATENCY, SPACE).table("latency") is LATENCY
    made = as_costs(lambda config: 1 + 2 * len(config.fallback_ops), SPACE).table("latency")
    assert [made.cost(c) for c in every()] == [1 + 2 * len(c.fallback_ops) for c in every()]


def costing(
    *, quantized: float = 2.0, fp32: float = 1.0, fixed: float = 0.0, boundaries: Any = ()
) -> CostTable:
    """A table by which each op costs the same."""
    ops = {
        op: {o.label: quantized if o.is_quantized else fp32 for o in tunable.options}
        for tunable in SPACE.tunables
        for op in tunable.ops
    }
    return CostTable("latency", "s", ops, boundaries, fixed)


def test_what_an_option_changes_may_be_negative():
    # A function gives a table of changes, which may be saved and given.
    table = as_costs(lambda config: 9.0 - len(config.quantized_ops), SPACE).table("latency")
    assert min(min(options.values()) for options in table.ops.values()) == -1.0
    assert as_costs(table, SPACE).table("latency") is table
    with pytest.raises(ValueError, match="the model costs -"):
        as_costs(replace(table, fixed=1.0), SPACE)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("nowhere.json", ValueError, "'nowhere.json' cannot be read"),
        (7, TypeError, "costs must be .* but got 7"),
        (lambda config: None, ValueError, "it has given None for FP32"),
        (lambda config: -1, ValueError, "it has given -1 for FP32"),
        (
            lambda config: 1.0 - 2.0 * len(config.quantized_ops),
            ValueError,
            "it has given -1.0 for that with op0 as ",
        ),
        (lambda config: float("inf"), ValueError, "it has given inf for FP32"),
        (lambda: 1.0, TypeError, "costs: the function must take one argument"),
        (lambda config, more: 1.0, TypeError, "costs: the function must take one argument"),
        (costing(quantized=-3.0), ValueError, "the cost -3 for op 'op0' as '[^']+'; costs must"),
        (costing(fp32=-1.0), ValueError, "the cost -1 for op 'op0' as 'fp32'"),
        (costing(fixed=-9.0), ValueError, "the model costs -6 in FP32"),
        (
            costing(boundaries=(Boundary("op0", ("op1",), quantize=-0.5),)),
            ValueError,
            "the cost -0.5 at the boundary between 'op0' and 'op1'",
        ),
        (
            CostTable("latency", "s", {"other": {FP32.label: 1.0}}),
            ValueError,
            "no cost for op 'op0'",
        ),
        (
            CostTable("latency", "s", {"op0": {FP32.label: 1.0}}),
            ValueError,
            "no cost for op 'op0'",
        ),
        (CostTable("latncy", "s", {"op0": {FP32.label: 1.0}}), ValueError, "'latency'"),
        (Costs({"size": LATENCY}), ValueError, "'size' says that it is 'latency'"),
    ],
)
def test_costs_that_do_not_fit_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        as_costs(value, SPACE)


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "costs.json").write_text("[]")
    with pytest.raises(ValueError, match=r"costs\.json.*'tables'"):
        as_costs(tmp_path / "costs.json", SPACE)
