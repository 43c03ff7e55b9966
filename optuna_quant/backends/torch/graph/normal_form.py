"""An exported graph in the form in which ops are looked for: the same numbers, fewer forms."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.graph.constant_view import constant_view
from optuna_quant.backends.torch.graph.in_place import replace_in_place


if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.fx import Graph
    from torch.fx import Node


_ATEN: Any = torch.ops.aten
_CASTS = frozenset({_ATEN.to.dtype, _ATEN.to.dtype_layout, _ATEN.to.device, _ATEN.to.other})
_CHANGES_MORE = ("copy", "memory_format")
_MATRIX_AXES = 2


def normalize(graph: Graph, parameters: Mapping[str, str]) -> None:
    """Bring a graph into the form in which ops are looked for.

    What it computes stays the same, bit for bit: casts to the type that is there are left out,
    operators write into new tensors where nothing sees the difference, and a product with a
    parameter is a Linear layer.

    Args:
        graph:
            The graph, which is changed.
        parameters:
            The names of the parameters whose memory constants have, by the names of those.
    """
    for node in list(graph.nodes):
        if node.op == "get_attr":
            node.target = parameters.get(str(node.target), node.target)
        elif node.target is _ATEN._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in _CASTS and _is_idle(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    replace_in_place(graph)
    for node in list(graph.nodes):
        _make_linear(graph, node)


def _is_idle(cast: Node) -> bool:
    """Whether a cast gives the tensor that it takes."""
    before, after = (_value(each) for each in (cast.args[0], cast))
    if before is None or after is None or any(cast.kwargs.get(key) for key in _CHANGES_MORE):
        return False
    names = [each.name for each in cast.target._schema.arguments]  # type: ignore[union-attr]
    if any(value and names[place] in _CHANGES_MORE for place, value in enumerate(cast.args)):
        return False
    same = before.dtype == after.dtype and before.device == after.device
    return same and before.layout == after.layout


def _value(node: object) -> torch.Tensor | None:
    value = getattr(node, "meta", {}).get("val")
    return value if isinstance(value, torch.Tensor) else None


def _make_linear(graph: Graph, node: Node) -> None:
    """Make a product with a parameter, perhaps with a bias, a Linear layer.

    PyTorch computes that as the same product with the transpose of the weight, which is the
    parameter again.
    """
    bias: Any = None
    if node.target in (_ATEN.mm.default, _ATEN.matmul.default):
        rows, factor = node.args
    elif node.target is _ATEN.addmm.default and not node.kwargs:
        bias, rows, factor = node.args
        if not _is_constant(bias, 1):
            return
    else:
        return
    if not _is_constant(factor, _MATRIX_AXES) or constant_view(rows) is not None:
        return
    values = _value(rows), _value(factor)
    if values[0] is None or values[1] is None or values[0].ndim < _MATRIX_AXES:
        return
    with graph.inserting_before(node):
        weight = graph.call_function(_ATEN.t.default, (factor,))
    weight.meta["val"] = values[1].t()
    node.target = _ATEN.linear.default
    node.args = (rows, weight) if bias is None else (rows, weight, bias)


def _is_constant(node: object, axes: int) -> bool:
    value = _value(node)
    return value is not None and value.ndim == axes and constant_view(node) is not None
