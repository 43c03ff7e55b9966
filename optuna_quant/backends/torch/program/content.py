"""A content hash of a program."""

from __future__ import annotations

import hashlib

import torch
from torch.fx import GraphModule


def program_digest(graph: GraphModule) -> str:
    """A hash of what a graph module computes, the same in every process.

    Args:
        graph:
            The graph module.
    """
    found = hashlib.sha256(b"torch program 1\n")
    numbers = {node: number for number, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        args = torch.fx.node.map_arg(node.args, lambda each: f"%{numbers[each]}")
        kwargs = torch.fx.node.map_arg(node.kwargs, lambda each: f"%{numbers[each]}")
        found.update(repr((node.op, str(node.target), args, kwargs)).encode())
    for name, nested in graph.named_children():
        if isinstance(nested, GraphModule):  # The branches of torch.cond, for instance.
            found.update(repr((name, program_digest(nested))).encode())
    for name, tensor in sorted(graph.named_buffers(recurse=False)):
        values = tensor.detach().cpu().contiguous()
        found.update(repr((name, str(values.dtype), tuple(values.shape))).encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
