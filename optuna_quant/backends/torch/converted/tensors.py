"""The tensors of a program that is being written: each once, under the path of its module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch.fx import Graph
    from torch.fx import Node


class ProgramTensors:
    """Adds buffers to a module; a tensor with a known content is not added twice.

    Args:
        root:
            The module.
        graph:
            The graph, whose nodes read them.
    """

    def __init__(self, root: torch.nn.Module, graph: Graph) -> None:
        self._root = root
        self._graph = graph
        self._known: dict[object, str] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        self._modules: set[str] = set()

    def add(self, path: str, tensor: torch.Tensor, key: object = None) -> str:
        """Add a tensor.

        Args:
            path:
                Where, if that is free.
            tensor:
                The tensor.
            key:
                Stands for its content; None if it is not shared.

        Returns:
            Where it is.
        """
        if key is not None and key in self._known:
            return self._known[key]
        found = self._free(path)
        self._tensors[found] = tensor
        *owners, name = found.split(".")
        module = self._root
        for number, owner in enumerate(owners):
            self._modules.add(".".join(owners[: number + 1]))
            if owner not in module._modules:
                module.add_module(owner, torch.nn.Module())
            module = module.get_submodule(owner)
        module.register_buffer(name, tensor.detach().cpu().contiguous())
        if key is not None:
            self._known[key] = found
        return found

    def read(self, path: str) -> Node:
        """A node that reads a tensor, at the place where the graph inserts."""
        return self._graph.get_attr(path)

    def _free(self, path: str) -> str:
        plain = ".".join(re.sub(r"\W", "_", part) or "_" for part in path.split("."))
        found, number = plain, 2
        while not self._is_free(found):
            found, number = f"{plain}_{number}", number + 1
        return found

    def _is_free(self, path: str) -> bool:
        if path in self._tensors or path in self._modules:
            return False
        owners = path.split(".")[:-1]
        above = (".".join(owners[:number]) for number in range(1, len(owners) + 1))
        reserved = "." not in path and hasattr(torch.fx.GraphModule, path)
        return not reserved and not any(each in self._tensors for each in above)
