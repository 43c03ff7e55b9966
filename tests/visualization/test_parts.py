"""Names, precisions, units and the layout of graphs."""

from __future__ import annotations

import onnx_models
import pytest
from spaces import DYNAMIC
from spaces import STATIC

from optuna_quant.backends.base import GraphNode
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.blocks import Block
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.visualization import _options
from optuna_quant.visualization._graph_layout import MOST_LAYERS
from optuna_quant.visualization._graph_layout import Part
from optuna_quant.visualization._graph_layout import parts_of
from optuna_quant.visualization._graph_layout import placed
from optuna_quant.visualization._names import shortened
from optuna_quant.visualization._options import precision_of
from optuna_quant.visualization._units import unit_of


@pytest.mark.parametrize(
    ("names", "short"),
    [
        ([], []),
        (["op"], ["op"]),
        (["Conv.1", "Conv.2"], ["Conv.1", "Conv.2"]),
        # Exporters repeat scopes.
        (["/f/f.1/conv/conv.0/Conv", "/f/f.2/Conv"], ["/f.1/conv.0/Conv", "/f.2/Conv"]),
        # A shared prefix is left out only where there is no room for it.
        ([f"/{'x' * 30}/{end}" for end in "ab"], ["a", "b"]),
        (["y" * 40], ["yyyyyyyyyyy…yyyyyyyyyyyyyyyyyyyy"]),
        (["line\nbreak"], ["line\\nbreak"]),
    ],
)
def test_short_names(names: list[str], short: list[str]) -> None:
    assert shortened(names) == short


def test_short_names_differ() -> None:
    names = [f"{'a' * 100}{i}{'b' * 100}" for i in range(300)]
    short = shortened(names)
    assert len(set(short)) == 300
    assert max(map(len, short)) <= 32


def weights(dtype: str) -> OpConfig:
    return OpConfig("weight_only", None, TensorConfig(dtype, "sym"))


@pytest.mark.parametrize(
    ("option", "precision"),
    [
        (OpConfig("fp32"), _options.FP32),
        (OpConfig("bf16"), _options.BFLOAT16),
        (OpConfig("fp16"), _options.FLOAT16),
        (STATIC, _options.STATIC_8),
        (DYNAMIC, _options.DYNAMIC_8),
        (OpConfig("static", TensorConfig("uint16"), TensorConfig("int8")), "ACTIVATIONS_16"),
        (OpConfig("static", TensorConfig("uint8"), TensorConfig("int4")), _options.BITS_4),
        (weights("int8"), _options.WEIGHTS_8),
        (weights("uint4"), _options.BITS_4),
        (weights("int2"), _options.FEWER_BITS),
    ],
)
def test_precisions(option: OpConfig, precision: object) -> None:
    expected = getattr(_options, precision) if isinstance(precision, str) else precision
    assert precision_of(option) == expected


def test_precisions_have_different_names_and_colours() -> None:
    assert len({each.color for each in _options.PRECISIONS}) == len(_options.PRECISIONS)
    assert len({each.name for each in _options.PRECISIONS}) == len(_options.PRECISIONS)


@pytest.mark.parametrize(
    ("measure", "values", "title"),
    [
        ("latency", [2.0, 0.1], "Time of a run (s)"),
        ("latency", [2e-3], "Time of a run (ms)"),
        ("latency", [2e-5], "Time of a run (µs)"),
        ("latency", [], "Time of a run (µs)"),
        ("size", [5e6, 1e3], "Size of the model (MB)"),
        ("ops", [3.0], "Ops in fallback"),
        ("bit_operations", [4e9], "Bit operations (10⁹)"),
        ("latency=0.7,size=0.3", [0.5], "Cost: latency=0.7,size=0.3 (relative to FP32)"),
        ("own", [0.5], "Cost: own"),
    ],
)
def test_units(measure: str, values: list[float], title: str) -> None:
    assert unit_of(measure, values).title == title


def node(name: str, *inputs: str) -> GraphNode:
    return GraphNode(name, "Add" if name.startswith("add") else "Conv", inputs)


def test_nodes_that_are_not_shown_are_passed_through() -> None:
    nodes = [node("a"), node("relu", "a"), node("b", "relu")]
    assert parts_of(nodes, ["a", "b"]) == [
        Part("a", "Conv", ("a",), ()),
        Part("b", "Conv", ("b",), (0,)),
    ]


def test_a_node_where_paths_join_is_a_part() -> None:
    nodes = [node("a"), node("b", "a"), node("add", "b", "a"), node("c", "add")]
    assert parts_of(nodes, ["a", "b", "c"]) == [
        Part("a", "Conv", ("a",), ()),
        Part("b", "Conv", ("b",), (0,)),
        Part("add", "Add", (), (1, 0)),
        Part("c", "Conv", ("c",), (2,)),
    ]


def test_a_join_behind_all_ops_is_left_out() -> None:
    nodes = [node("a"), node("b", "a"), node("add", "b", "a")]
    assert [part.name for part in parts_of(nodes, ["a", "b"])] == ["a", "b"]


def test_blocks_are_one_part_with_their_joins() -> None:
    names = ["a", "b", "add0", "c", "d", "add1", "e"]
    nodes = [
        node("a"), node("b", "a"), node("add0", "b", "a"), node("c", "add0"), node("d", "c"),
        node("add1", "d", "add0"), node("e", "add1"),
    ]  # fmt: skip
    blocks = [Block("first", "f", ("a", "b")), Block("second", "f", ("c", "d"))]
    ops = [name for name in names if not name.startswith("add")]
    assert parts_of(nodes, ops, blocks) == [
        Part("first", "", ("a", "b"), ()),
        Part("second", "", ("c", "d"), (0,)),
        Part("e", "Conv", ("e",), (1,)),
    ]


def test_branches_are_beside_each_other() -> None:
    parts = [
        Part("a", "Conv", ("a",), ()),
        Part("b", "Conv", ("b",), (0,)),
        Part("c", "Conv", ("c",), (0,)),
        Part("d", "Add", ("d",), (1, 2)),
    ]
    assert [(p.x, p.y) for p in placed(parts, {})] == [(0, 0), (0, 1), (2, 1), (0, 2)]


def test_long_chains_are_broken_into_columns() -> None:
    parts = [Part(f"op{i}", "Conv", (f"op{i}",), (i - 1,) if i else ()) for i in range(100)]
    places = placed(parts, {})
    assert {place.column for place in places} == {0, 1, 2, 3}
    assert max(place.y for place in places) < MOST_LAYERS
    assert len({(place.x, place.y) for place in places}) == 100
    assert placed([], {}) == []


def test_graph_of_a_model() -> None:
    backend = OnnxRuntimeBackend(onnx_models.convnet(), inspect_only=True)
    nodes = backend.graph_nodes()
    names = [node.name for node in nodes]
    assert {op.name for op in backend.capability().ops} <= set(names)
    assert len(set(names)) == len(names)
    for place, each in enumerate(nodes):
        assert set(each.inputs) <= set(names[:place])  # Producers first.
    assert any(each.inputs for each in nodes)
