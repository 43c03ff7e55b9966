"""Programs on another device than that of their export."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule
from torch.fx.node import map_aggregate

from optuna_quant.backends.torch_program.quiet import without_idle_output


if TYPE_CHECKING:
    from optuna_quant.backends.torch_program.export import ModuleProgram


def on_device(exported: ModuleProgram, device: torch.device | None) -> ModuleProgram:
    """The same program on a device, with the tensors that it makes itself.

    The device of a tensor that ``forward`` makes, as in ``torch.zeros(3)``, is a part of the
    exported graph.

    Args:
        exported:
            The program; it is not changed.
        device:
            The device; None for where it is.
    """
    if device is None:
        return exported
    copied = copy.deepcopy(exported.program)
    for before, after in zip(exported.program.graph.nodes, copied.graph.nodes, strict=True):
        after.name = before.name  # A copy has others for names of Python, such as "input".
    with without_idle_output():
        moved = move_to_device_pass(copied, str(device))
    return replace(exported, program=moved)


def make_tensors_on(graph: GraphModule, device: torch.device) -> None:
    """Let all nodes of a graph module make tensors on a device, in its branches as well.

    Args:
        graph:
            The graph module.
        device:
            The device.
    """

    def moved(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    for each in graph.modules():
        if not isinstance(each, GraphModule):
            continue
        for node in each.graph.nodes:
            node.args = map_aggregate(node.args, moved)
            kwargs = dict(map_aggregate(node.kwargs, moved))
            if kwargs.get("device") is not None:
                kwargs["device"] = device  # It may be a text.
            node.kwargs = kwargs
        each.recompile()
