"""How many multiply-adds the ops of a program make, counted in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from optuna_quant.backends.torch.graph.run import GraphRun
from optuna_quant.backends.torch.graph.run import plain_kernels


if TYPE_CHECKING:
    from torch.fx import Node

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram


_OPERATIONS = 2
"""PyTorch counts a multiplication and an addition each as one."""


def count_multiply_adds(program: SwitchedProgram, feed: Feed) -> dict[str, int]:
    """The multiply-adds of each op in one run, and those of other nodes, by name.

    Args:
        program:
            The program.
        feed:
            What it is run on.
    """
    run = _CountingRun(program)
    with torch.no_grad(), plain_kernels(program.original):
        run.run(*program.inputs_of_call(program.tensors_of(feed)))
    return run.counts


class _CountingRun(GraphRun):
    def __init__(self, program: SwitchedProgram) -> None:
        super().__init__(program.original)
        self._names = {op.node: op.name for op in program.ops}
        self.counts: dict[str, int] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node, and count what it does."""
        if n.op != "call_function":
            return super().run_node(n)
        with FlopCounterMode(display=False) as counter:
            found = super().run_node(n)
        count = counter.get_total_flops() // _OPERATIONS
        if count:
            # No op is called so.
            self.counts[self._names.get(n.name, f"%{n.name}")] = count
        return found
