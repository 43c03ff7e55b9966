"""The ops at the two ends of a model: the first and the last product, and what lies outside them.

A product is a convolution, a matrix product, or a layer of these (Conv, ConvTranspose, MatMul,
Gemm, Attention and the like). What comes before the first products prepares the inputs, what comes
after the last ones makes the answer of their results; between them is the backbone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import captured_names


if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph


PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"})
"""The operators that are products."""


def first_product(graph: Graph) -> str | None:
    """The name of the first product in the order of the graph; None if there is none."""
    return next((node.name for node in graph.nodes if node.op_type in PRODUCTS), None)


def last_product(graph: Graph) -> str | None:
    """The name of the last product in the order of the graph; None if there is none."""
    return next((node.name for node in reversed(graph.nodes) if node.op_type in PRODUCTS), None)


def outside_backbone(graph: Graph) -> frozenset[str]:
    """The names of the ops that are no product and lie between no two.

    These are the ops with products only behind them, only before them, or neither.
    neural-compressor takes only those for preprocessing that lead to the first product in the
    order of the graph; here those that prepare a second input are so too. Without any product
    there is no backbone, and nothing outside one.
    """
    if first_product(graph) is None:
        return frozenset()
    reached = _reached(graph.nodes)
    reaching = _reaching(graph.nodes)
    return frozenset(
        node.name
        for node, after, before in zip(graph.nodes, reached, reaching, strict=True)
        if node.op_type not in PRODUCTS and not (after and before)
    )


def _reached(nodes: Sequence[onnx.NodeProto]) -> list[bool]:
    """Of each node whether a product is before it."""
    behind: set[str] = set()
    found = []
    for node in nodes:
        found.append(not behind.isdisjoint(_reads(node)))
        if found[-1] or node.op_type in PRODUCTS:
            behind.update(name for name in node.output if name)
    return found


def _reaching(nodes: Sequence[onnx.NodeProto]) -> list[bool]:
    """Of each node whether a product is behind it."""
    before: set[str] = set()
    found = []
    for node in reversed(nodes):
        found.append(not before.isdisjoint(node.output))
        if found[-1] or node.op_type in PRODUCTS:
            before.update(_reads(node))
    return found[::-1]


def _reads(node: onnx.NodeProto) -> set[str]:
    return {*node.input, *captured_names(node)} - {""}
