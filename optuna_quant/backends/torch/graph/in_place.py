"""Operators that write into their input, replaced by those that give a new tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.graph.ops import writes_in_place


if TYPE_CHECKING:
    from torch.fx import Graph
    from torch.fx import Node


def replace_in_place(graph: Graph) -> None:
    """Replace in-place operators where no other node sees the tensor afterwards.

    The result is the same. Where a view of the tensor exists, or a later node reads it, the
    operator stays.

    Args:
        graph:
            The graph, which is changed.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        other = _functional(node)
        if other is not None and _is_last_reader(node, order):
            node.target = other


def _functional(node: Node) -> Any:
    if not writes_in_place(node) or not isinstance(node.args[0], torch.fx.Node):
        return None
    namespace, _, name = node.target._schema.name.partition("::")  # type: ignore[union-attr]
    if namespace != "aten" or not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    other = getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]
    if other is None:
        return None
    arguments = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
    same = [each.name for each in other._schema.arguments] == arguments
    return other if same and not other._schema.is_mutable and _keeps_type(node) else None


def _keeps_type(node: Node) -> bool:
    """Whether a new tensor would have the type of the one that is written."""
    if node.target is torch.ops.aten.copy_.default:
        return True
    values = [each.meta.get("val") for each in node.all_input_nodes]
    tensors = [each for each in values if isinstance(each, torch.Tensor) and each.ndim]
    return len({each.dtype for each in tensors if each.is_floating_point()}) <= 1


def _is_last_reader(node: Node, order: dict[Node, int]) -> bool:
    written: Any = node.args[0]
    if written.op != "call_function" or has_alias(written):
        return False
    if any(
        written in _nodes_of(value) for place, value in enumerate(node.args) if place
    ) or written in _nodes_of(node.kwargs):
        return False
    others = [user for user in written.users if user is not node]
    return all(order[user] < order[node] and not has_alias(user) for user in others)


def _nodes_of(value: Any) -> list[Node]:
    found: list[Any] = []
    torch.fx.node.map_arg(value, found.append)
    return found


def has_alias(node: Node) -> bool:
    """Whether what a node gives may share memory with another tensor.

    Args:
        node:
            A node that calls a function.
    """
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return True
    return any(each.alias_info is not None for each in schema.returns)


def written_by(node: Node) -> list[Node]:
    """What a node writes into: the tensors behind the views that it gets.

    Args:
        node:
            A node of a program.
    """
    if not writes_in_place(node):
        return []
    found: list[Node] = []
    for place, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
        found += map(_owner, _nodes_of(given))
    return found


def _owner(tensor: Node) -> Node:
    """The node that gives the memory behind views."""
    while tensor.op == "call_function" and tensor.args and has_alias(tensor):
        first: Any = tensor.args[0]
        if not isinstance(first, torch.fx.Node):
            break
        tensor = first
    return tensor
