"""The parameters and buffers of the user's module, as a module to train has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram


@dataclass(frozen=True)
class ModuleState:
    """Which tensors of a program are parameters, and which of them are one.

    Args:
        trainable:
            Whether each parameter is trained, by its name.
        persistent:
            The names of the buffers that belong to a module's state dict.
        tied:
            Of parameters that are the same as another: that one's name, by their own.
    """

    trainable: Mapping[str, bool]
    persistent: frozenset[str]
    tied: Mapping[str, str]

    @classmethod
    def of(cls, program: ExportedProgram) -> ModuleState:
        """The state of an exported program.

        Args:
            program:
                The program.
        """
        trainable: dict[str, bool] = {}
        tied: dict[str, str] = {}
        first: dict[int, str] = {}
        parameters = set(program.graph_signature.parameters)
        for name, tensor in program.state_dict.items():
            if name not in parameters and not isinstance(tensor, torch.nn.Parameter):
                continue
            trainable[name] = tensor.requires_grad
            if first.setdefault(id(tensor), name) != name:
                tied[name] = first[id(tensor)]
        return cls(trainable, frozenset(program.state_dict) - set(trainable), tied)

    def register(self, module: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> None:
        """Give a module copies of parameters and buffers.

        Args:
            module:
                The module.
            values:
                The tensors of the program, by name.
        """
        made: dict[str, torch.nn.Parameter] = {}
        for name, tensor in values.items():
            owner, own = _owner(module, name)
            if name not in self.trainable:
                is_persistent = name in self.persistent
                owner.register_buffer(own, tensor.detach().clone(), persistent=is_persistent)
                continue
            same = self.tied.get(name, name)
            if same not in made:
                copied = values[same].detach().clone()
                made[same] = torch.nn.Parameter(copied, requires_grad=self.trainable[same])
            owner.register_parameter(own, made[same])


def _owner(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    """The submodule that has a tensor, which is made if need be, and its name there."""
    *path, own = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, torch.nn.Module())
        found = module._modules[part]
        assert found is not None
        module = found
    return module, own
