"""Which parts of a graph repeat: graphs are written down, and no backend is needed."""

from __future__ import annotations

from collections.abc import Sequence

from optuna_quant.backends.blocks import FlowNode
from optuna_quant.backends.blocks import LayerKind
from optuna_quant.backends.blocks import find_blocks


def layer(name: str, *reads: str, size: int = 8, kind: str = "Conv") -> FlowNode:
    """A layer that makes the tensor of its name."""
    what = LayerKind((kind, size), (kind,))
    return FlowNode(name, frozenset(reads), (name,), what)


def plain(name: str, *reads: str, is_blind: bool = False) -> FlowNode:
    return FlowNode(name, frozenset(reads), (name,), is_blind=is_blind)


def residual(name: str, x: str, size: int = 8) -> list[FlowNode]:
    """Two layers beside the identity, and their sum."""
    first, second = f"{name}.1", f"{name}.2"
    return [
        layer(first, x, size=size),
        layer(second, first, size=size),
        plain(name, x, second),
    ]


def chain(*units: list[FlowNode]) -> list[FlowNode]:
    """Units behind an embedding, which makes ``x``: blocks may begin there."""
    embedding = FlowNode("embedding", frozenset(["tokens"]), ("x",), is_source=True)
    return [embedding, *(node for unit in units for node in unit)]


def ops_of(nodes: Sequence[FlowNode]) -> list[tuple[str, ...]]:
    return [block.ops for block in find_blocks(nodes)]


def test_residual_units_are_blocks_of_one_family() -> None:
    blocks = find_blocks(chain(residual("a", "x"), residual("b", "a"), residual("c", "b")))
    assert [block.ops for block in blocks] == [("a.1", "a.2"), ("b.1", "b.2"), ("c.1", "c.2")]
    assert {block.family for block in blocks} == {"family0"}
    assert [block.name for block in blocks] == [f"family0/block{i}" for i in range(3)]


def test_what_stands_alone_is_in_no_block() -> None:
    stem, head = [layer("stem", "x", size=3)], [layer("head", "b", kind="Gemm")]
    found = ops_of(chain(stem, residual("a", "stem"), residual("b", "a"), head))
    assert found == [("a.1", "a.2"), ("b.1", "b.2")]


def test_a_single_layer_that_repeats_is_no_block() -> None:
    assert ops_of([layer("a", "x"), layer("b", "a", kind="Gemm")]) == []
    assert ops_of([layer("a", "x"), layer("b", "a"), layer("c", "b")]) == []


def test_a_plain_chain_repeats_with_its_period() -> None:
    kinds, reads, nodes = ["Conv", "Gemm"] * 3, "x", []
    for number, kind in enumerate(kinds):
        nodes.append(layer(f"n{number}", reads, kind=kind))
        reads = f"n{number}"
    assert ops_of(nodes) == [("n0", "n1"), ("n2", "n3"), ("n4", "n5")]


def test_equal_sizes_come_before_alike_ones() -> None:
    units = chain(
        residual("a", "x"), residual("b", "a"), residual("c", "b", 16), residual("d", "c", 16)
    )
    assert [block.family for block in find_blocks(units)] == ["family0"] * 2 + ["family1"] * 2


def test_stages_that_differ_in_size_alone_are_alike() -> None:
    found = find_blocks(chain(residual("a", "x", 8), residual("b", "a", 16)))
    assert [block.ops for block in found] == [("a.1", "a.2"), ("b.1", "b.2")]


def test_a_mask_that_all_units_read_does_not_join_them() -> None:
    nodes = chain([plain("mask", "tokens")])
    for name, x in (("a", "x"), ("b", "a"), ("c", "b")):
        nodes += [layer(f"{name}.1", x), layer(f"{name}.2", f"{name}.1", "mask")]
        nodes.append(plain(name, x, f"{name}.2"))
    assert ops_of(nodes) == [("a.1", "a.2"), ("b.1", "b.2"), ("c.1", "c.2")]


def test_a_shape_that_is_read_later_does_not_join_them() -> None:
    units = chain(residual("a", "x"), [plain("shape", "a", is_blind=True)], residual("b", "a"))
    assert ops_of([*units, plain("out", "b", "shape")]) == [("a.1", "a.2"), ("b.1", "b.2")]


def test_units_below_a_connection_that_skips_all_are_found() -> None:
    units = chain(residual("a", "x"), residual("b", "a"), residual("c", "b"))
    found = ops_of([*units, plain("out", "c", "x")])
    assert found == [("a.1", "a.2"), ("b.1", "b.2"), ("c.1", "c.2")]


def test_names_play_no_part() -> None:
    units = chain(residual("z", "x"), residual("conv_7", "z"))
    assert ops_of(units) == [("z.1", "z.2"), ("conv_7.1", "conv_7.2")]


def test_no_graph_has_no_blocks() -> None:
    assert find_blocks([]) == ()
