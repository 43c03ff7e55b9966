"""Cost tables: what a configuration costs, and costs as JSON that people edit."""

from __future__ import annotations

from dataclasses import replace
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.costs import Boundary
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs import Validation
from optuna_quant.costs.known import linearized
from optuna_quant.costs.table import combined
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


INT8 = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym"))
KL = OpConfig("static", TensorConfig("uint8", algorithm="kl"), TensorConfig("int8", "sym"))
SPACE = TuningSpace(
    (
        Tunable("first", "Conv", ("first",), (INT8, KL, FP32)),
        Tunable("second", "Conv", ("second",), (INT8, FP32)),
    )
)

names = st.text(min_size=0, max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
boundaries = st.builds(
    Boundary, names, st.lists(names, max_size=3).map(tuple), quantize=numbers, dequantize=numbers
)
tables = st.builds(
    CostTable,
    names,
    names,
    st.dictionaries(names, st.dictionaries(names, numbers, min_size=1, max_size=3), max_size=3),
    st.lists(boundaries, max_size=3).map(tuple),
    numbers,
    st.dictionaries(names, st.dictionaries(names, numbers, max_size=3), max_size=2),
)
validations = st.builds(
    Validation,
    st.lists(numbers, max_size=3).map(tuple),
    st.lists(numbers, max_size=3).map(tuple),
    numbers,
    st.none() | numbers,
)


@given(
    st.lists(tables, max_size=3),
    st.dictionaries(names, names, max_size=2),
    st.none() | validations,
    numbers,
)
def test_costs_survive_json(
    given_tables: list[CostTable],
    conditions: dict[str, str],
    validation: Validation | None,
    seconds: float,
) -> None:
    costs = Costs({t.measure: t for t in given_tables}, conditions, validation, seconds)
    assert Costs.loads(costs.dumps()) == costs


def test_costs_of_numpys_types_survive_json() -> None:
    one = np.int64(1)
    boundaries = (Boundary("a", ("b",), one, np.float32(0.5)),)  # type: ignore[arg-type]
    given_table = CostTable("size", "bytes", {"a": {"fp32": one}}, boundaries, one)  # type: ignore[arg-type]
    costs = Costs({"size": given_table})
    assert Costs.loads(costs.dumps()) == costs


def costs() -> Costs:
    ops = {
        "first": {INT8.label: 1.0, KL.label: 1.0, "fp32": 3.0},
        "second": {INT8.label: 2.0, "fp32": 5.0},
    }
    boundary = Boundary("first", ("second",), quantize=0.5, dequantize=0.25)
    return Costs({"latency": CostTable("latency", "s", ops, (boundary,), 10.0)})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (FP32, FP32, 10 + 3 + 5),
        (INT8, INT8, 10 + 1 + 2),
        (FP32, INT8, 10 + 3 + 2 + 0.5),
        (KL, FP32, 10 + 1 + 5 + 0.25),
    ],
)
def test_boundaries_are_paid_where_precision_changes(
    first: OpConfig, second: OpConfig, expected: float
) -> None:
    config = QuantConfig({"first": first, "second": second})
    assert costs().table("latency").cost(config) == expected


def test_a_producer_that_no_configuration_names_runs_in_floats() -> None:
    ops = {"first": {INT8.label: 0.0, "fp32": 0.0}, "second": {INT8.label: 0.0, "fp32": 0.0}}
    table = CostTable("size", "bytes", ops, (Boundary("", ("first", "second"), quantize=7.0),))
    paid = [
        table.cost(QuantConfig({"first": first, "second": second}))
        for first in (FP32, INT8)
        for second in (FP32, INT8)
    ]
    assert paid == [0.0, 7.0, 7.0, 7.0]


def test_costs_of_a_space_are_complete(tmp_path: Any) -> None:
    path = tmp_path / "costs.json"
    costs().save(path)
    Costs.load(path).check(SPACE)
    Costs.load(path).check(SPACE, ["latency"])


def edited(change: Any) -> str:
    stored = json.loads(costs().dumps())
    change(stored)
    return json.dumps(stored)


def test_an_op_without_a_cost_is_named_with_the_nearest_one() -> None:
    def rename(stored: Any) -> None:
        ops = stored["tables"][0]["ops"]
        ops["secnod"] = ops.pop("second")

    with pytest.raises(ValueError, match=r"no cost for op 'second'.*Did you mean 'secnod'"):
        Costs.loads(edited(rename)).check(SPACE)


def test_an_option_without_a_cost_is_named() -> None:
    def drop(stored: Any) -> None:
        del stored["tables"][0]["ops"]["first"][KL.label]

    with pytest.raises(ValueError, match=r"no cost for op 'first' as 'static a=uint8/.*kl"):
        Costs.loads(edited(drop)).check(SPACE)


def test_a_measure_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"measure 'size' costs is not known; known are: latency"):
        costs().check(SPACE, ["size"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(tabels=[]), r"unknown key 'tabels'. Did you mean 'tables'"),
        (lambda s: s.update(tables={}), "JSON object with the list 'tables'"),
        (lambda s: s.update(format=99), "the format 99, not 1"),
        (lambda s: s["tables"].append(s["tables"][0]), "two tables of 'latency'"),
        (lambda s: s["tables"][0].pop("ops"), "lacks the key 'ops'"),
        (lambda s: s["tables"][0].update(fixd=1), "unknown key 'fixd'. Did you mean 'fixed'"),
        (lambda s: s["tables"][0].update(fixed="1"), "fixed must be a finite number, but is '1'"),
        (
            lambda s: s["tables"][0]["ops"]["first"].update(fp32=None),
            "op 'first' as 'fp32' must be a finite number, but is None",
        ),
        (lambda s: s["tables"][0]["ops"].update(first=3), "op 'first', must be an object"),
        (lambda s: s["tables"][0]["ops"].update(first={}), "no option of op 'first'"),
        (lambda s: s["tables"][0].update(boundaries=3), "boundaries must be a list"),
        (
            lambda s: s["tables"][0]["boundaries"][0].update(consumers="second"),
            "boundary 0, must have the name of its producer and a list of its consumers' names",
        ),
        (lambda s: s["tables"][0]["boundaries"][0].pop("producer"), "lacks the key 'producer'"),
        (lambda s: s.update(validation={"noise": 1}), "The validation has the keys"),
        (lambda s: s.update(seconds="long"), "seconds must be a number"),
        (lambda s: s.update(conditions=[]), "conditions must be an object"),
    ],
)
def test_what_is_wrong_with_edited_costs_is_said(change: Any, message: str, tmp_path: Any) -> None:
    path = tmp_path / "costs.json"
    path.write_text(edited(change))
    with pytest.raises(ValueError, match=message) as caught:
        Costs.load(path)
    assert str(path) in str(caught.value)


def test_what_is_no_json_is_said() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        Costs.loads("{")


def test_a_cost_that_is_infinite_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a finite number, but is inf"):
        Costs.loads(costs().dumps().replace("3.0", "Infinity"))


def test_recipes_add_their_cost_where_anything_is_quantized() -> None:
    table = replace(costs().table("latency"), recipes={"smooth": {"on": 2.0}, "x": {"True": -1}})
    space = replace(SPACE, recipes={"smooth": ("off", "on"), "x": (False, True), "y": ("a", "b")})
    plain = replace(table, recipes={})
    config = QuantConfig({"first": INT8, "second": INT8}, {"smooth": "on", "x": True, "y": "b"})
    assert table.cost(config) == plain.cost(config) + 1
    assert table.cost(config.with_recipe("smooth", "off")) == plain.cost(config) - 1
    floats = QuantConfig({"first": FP32, "second": FP32}, config.recipes)
    assert table.cost(floats) == plain.cost(floats)
    # As a boundary it is seen by what looks for the cheapest configuration.
    folded = table.with_recipes(config.recipes)
    assert not folded.recipes
    for each in (config, floats, config.with_ops({"first": FP32})):
        assert folded.cost(each) == table.cost(each)
    assert combined([(table, 2.0), (plain, 1.0)], measure="m").cost(config) == (
        2 * table.cost(config) + plain.cost(config)
    )
    by_function = linearized(table.cost, space, measure="latency")
    assert by_function.recipes == table.recipes
    assert table.within(["first"], rest="fp32").recipes == table.recipes


def test_a_wrong_cost_of_a_recipe_is_named() -> None:
    stored = json.loads(costs().dumps())
    stored["tables"][0]["recipes"] = {"smooth": {"on": "much"}}
    with pytest.raises(ValueError, match="recipe smooth=on must be a finite number"):
        Costs.loads(json.dumps(stored))
