"""A content hash of a program."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
import hashlib
from typing import Any

import torch
from torch.fx import GraphModule


def program_digest(graph: GraphModule) -> str:
    """A hash of what a graph module computes, the same in every process.

    Args:
        graph:
            The graph module.
    """
    return _digest(graph, "torch program 1", with_values=True)


def structure_digest(graph: GraphModule) -> str:
    """A hash of how a graph module computes, whatever the values of its tensors are.

    Args:
        graph:
            The graph module.
    """
    return _digest(graph, "torch structure 1", with_values=False)


def _digest(graph: GraphModule, kind: str, *, with_values: bool) -> str:
    found = hashlib.sha256(f"{kind}\n".encode())
    numbers = {node: number for number, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        args = torch.fx.node.map_aggregate(node.args, partial(_content, numbers))
        kwargs = torch.fx.node.map_aggregate(node.kwargs, partial(_content, numbers))
        if kwargs.get("device") is not None:  # It may be a text.
            kwargs = {**kwargs, "device": torch.device("cpu")}
        found.update(repr((node.op, str(node.target), args, kwargs)).encode())
    for name, nested in graph.named_children():
        if isinstance(nested, GraphModule):  # The branches of torch.cond, for instance.
            digest = _digest(nested, kind, with_values=with_values)
            found.update(repr((name, digest)).encode())
    for name, tensor in sorted(graph.named_buffers(recurse=False)):
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        if with_values:
            values = tensor.detach().cpu().contiguous()
            found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _content(numbers: Mapping[torch.fx.Node, int], value: Any) -> Any:
    """An argument as it is in every process, wherever the program computes."""
    if isinstance(value, torch.fx.Node):
        return f"%{numbers[value]}"
    return torch.device("cpu") if isinstance(value, torch.device) else value
