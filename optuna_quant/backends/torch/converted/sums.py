"""Sums of a Linear layer and a tensor that torchao's kernel would write into."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.reference_ops import QUANTIZED
from optuna_quant.backends.torch.graph.in_place import has_alias


if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.fx import Node


_DIFFERENCES = {ATEN.add.Tensor: ATEN.sub.Tensor, ATEN.add_.Tensor: ATEN.sub_.Tensor}
# What torchao takes into the kernel of a Linear layer, but fails on if a sum follows.
_FUSED = (ATEN.relu.default, ATEN.relu_.default, ATEN.gelu.default)
_PRODUCTS = (ATEN.linear.default, ATEN.matmul.default, ATEN.mm.default, ATEN.addmm.default)
# Not views by their schema, but they may become the tensor itself.
_COPIES = (
    *(ATEN.clone.default, ATEN.dropout.default, ATEN.feature_dropout.default),
    *(ATEN.alpha_dropout.default, ATEN.feature_alpha_dropout.default),
)
# What nothing simplifies to a tensor that was there before, as it does with `x * 1`.
_NEW = frozenset(
    {
        *_PRODUCTS,
        *(ATEN.relu.default, ATEN.gelu.default, ATEN.silu.default, ATEN.tanh.default),
        *(ATEN.sigmoid.default, ATEN.softmax.int, ATEN.layer_norm.default),
        *(QUANTIZED.dequantize_per_tensor.default, QUANTIZED.dequantize_per_tensor.tensor),
    }
)


def keep_addends(graph: GraphModule) -> None:
    """Write sums of a Linear layer so that no kernel adds into what the program still needs.

    The integer kernel of a Linear layer that also adds gives its sum in the memory of what it
    adds, which may be an input, a parameter or a view of a tensor that is read later; and it
    adds without a factor. Where an activation lies between the layer and the sum, torchao's
    passes fail. Such a sum becomes a difference, ``a - (-b)``, which is the same number for
    number and which no kernel takes. Other sums stay.

    Args:
        graph:
            The program in reference form, which is changed.
    """
    new: set[Node] = set()
    for node in list(graph.graph.nodes):
        if node.target in _DIFFERENCES:
            if _is_of_product(node) and (_is_of_fused(node) or not _is_harmless(node, new)):
                _subtract(graph, node)
                new.add(node)
            elif node.target is ATEN.add.Tensor and all(_is_new(each, new) for each in node.args):
                new.add(node)
    graph.graph.lint()
    graph.recompile()


def _is_of_product(node: Node) -> bool:
    nodes = [each for each in node.args if isinstance(each, torch.fx.Node)]
    return len(nodes) == len(node.args) and any(_is_product(each) for each in nodes)


def _is_of_fused(node: Node) -> bool:
    """Whether an addend of it is an activation that its layer's kernel computes.

    Of one that something else reads as well, the passes make no part of a sum.
    """
    addends = map(_behind_views, node.all_input_nodes)
    return any(each.target in _FUSED and len(each.users) == 1 for each in addends)


def _is_product(node: Node) -> bool:
    node = _behind_views(node)
    if node.target in _FUSED:
        node = _behind_views(node.all_input_nodes[0])
    return node.target in _PRODUCTS


def _behind_views(node: Node) -> Node:
    while node.op == "call_function" and node.target not in _FUSED and _may_be_its_input(node):
        (node, *_) = node.all_input_nodes
    return node


def _may_be_its_input(node: Node) -> bool:
    first = node.args[0] if node.args else None
    return isinstance(first, torch.fx.Node) and (has_alias(node) or node.target in _COPIES)


def _is_harmless(node: Node, new: set[Node]) -> bool:
    """Whether either addend may be written to, if torchao finds that nothing reads it later."""
    one, other = node.args
    if node.target is not ATEN.add.Tensor or node.kwargs or one is other:
        return False
    return all(_is_new(each, new) and not _has_view(each) for each in (one, other))


def _is_new(node: Any, new: set[Node]) -> bool:
    return isinstance(node, torch.fx.Node) and (node.target in _NEW or node in new)


def _has_view(node: Any) -> bool:
    return any(_may_be_its_input(user) for user in node.users if user.op == "call_function")


def _subtract(graph: GraphModule, node: Node) -> None:
    one, other = node.args
    factor: Any = node.kwargs.get("alpha", 1)
    with graph.graph.inserting_before(node):
        if factor == 1:
            less = graph.graph.call_function(ATEN.neg.default, (other,))
        else:
            less = graph.graph.call_function(ATEN.mul.Tensor, (other, -factor))
    if isinstance(other, torch.fx.Node) and "val" in other.meta:
        less.meta["val"] = other.meta["val"]
    node.target = _DIFFERENCES[node.target]
    node.args = (one, less)
    node.kwargs = {}
