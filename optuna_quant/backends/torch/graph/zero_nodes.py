"""Tensors that are zero whatever the inputs are, such as the first state of an unrolled LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch


if TYPE_CHECKING:
    from torch.fx import Graph
    from torch.fx import Node


_ATEN: Any = torch.ops.aten

_ZEROS = frozenset({_ATEN.zeros.default, _ATEN.zeros_like.default, _ATEN.new_zeros.default})
_FILLED = {_ATEN.full.default: 1, _ATEN.full_like.default: 1, _ATEN.new_full.default: 2}
"""The position of the value."""

_MOVING = frozenset(
    {
        *(_ATEN.expand.default, _ATEN.reshape.default, _ATEN.view.default),
        *(_ATEN.unsqueeze.default, _ATEN.squeeze.dim, _ATEN.permute.default),
        *(_ATEN.transpose.int, _ATEN.select.int, _ATEN.slice.Tensor, _ATEN.clone.default),
    }
)


def zero_nodes(graph: Graph) -> frozenset[str]:
    """The names of the nodes that give nothing but zeros.

    Args:
        graph:
            The graph; nothing in it writes into a tensor.
    """
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and _is_zero(node, found):
            found.add(node)
    return frozenset(node.name for node in found)


def _is_zero(node: Node, known: set[Node]) -> bool:
    if node.target in _ZEROS:
        return True
    if node.target in _FILLED:
        return bool(node.args[_FILLED[node.target]] == 0)
    return node.target in _MOVING and node.args[0] in known
