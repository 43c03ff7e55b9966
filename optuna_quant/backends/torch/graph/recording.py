"""What ops read and give in the float program, and what they give alone when they are switched."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.fx.node import map_aggregate

from optuna_quant.backends.torch.graph.ops import writes_in_place
from optuna_quant.backends.torch.graph.run import GraphRun


if TYPE_CHECKING:
    from torch.fx import Node

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import Switch
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram


@dataclass(frozen=True, eq=False)
class OpRecord:
    """What an op has read and given in a run.

    Args:
        args:
            Its arguments.
        kwargs:
            Its arguments by name.
        norm_args:
            The arguments of its batch normalization but for the first one; None if it has none.
        output:
            What it gives, behind its batch normalization.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    norm_args: tuple[Any, ...] | None
    output: torch.Tensor


@dataclass(frozen=True, eq=False)
class Recording:
    """What a run of the float program has shown.

    Args:
        ops:
            The records of the ops that were looked at, by name.
        outputs:
            The outputs of the program by name.
    """

    ops: Mapping[str, OpRecord]
    outputs: Mapping[str, torch.Tensor]


class OpRecorder:
    """Runs the float program, and records ops.

    Args:
        program:
            The program.
        ops:
            The names of the ops to be recorded.
    """

    def __init__(self, program: SwitchedProgram, ops: Collection[str]) -> None:
        self._program = program
        self._ops = {op.name: op for op in program.ops if op.name in ops}
        self._nodes = {node.name: node for node in program.original.graph.nodes}
        # Then tensors are not what they were when they were recorded.
        self._copies = any(map(writes_in_place, self._nodes.values()))

    def record(self, feed: Feed, *, gradients: bool = False) -> Recording:
        """Run the program.

        Args:
            feed:
                The inputs by name.
            gradients:
                Whether the outputs can be differentiated by what the ops give.
        """
        run = _RecordingRun(self._program, self._ops, copies=self._copies, requires_grad=gradients)
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            tensors = self._program.tensors_of(feed)
            outputs = run.run(*self._program.inputs_of_call(tensors))
        return Recording(run.records(), self._program.named_outputs(outputs))

    def nbytes(self, feed: Feed) -> int:
        """Bytes of the activations of the ops, and twice those of what they give."""
        found: dict[int, int] = {}
        for name, record in self.record(feed).ops.items():
            for place in self._ops[name].form.activations:
                found[record.args[place].data_ptr()] = record.args[place].nbytes
            found[-len(found)] = 2 * record.output.nbytes
        return sum(found.values())

    def alone(
        self, op: TorchOp, record: OpRecord, switch: Switch, *, weights_alone: bool = False
    ) -> torch.Tensor:
        """What an op gives when it is switched and all others are not.

        Args:
            op:
                The op.
            record:
                What it reads in the float program.
            switch:
                How it is switched.
            weights_alone:
                Whether its activations stay as they are.
        """
        slots, args = self._program.slots[op.name], list(record.args)
        if not weights_alone:
            places = (*op.form.activations, *op.form.addends)
            for place, slot in zip(places, (*slots.activations, *slots.addends), strict=True):
                if slot in switch.modules:
                    args[place] = switch.modules[slot](args[place])
        if op.form.weight is not None:
            self._replace(args, op.form.weight.position, slots.weight, switch)
            self._replace(args, op.form.weight.bias, slots.bias, switch)
        target: Any = self._nodes[op.node].target
        with torch.no_grad():
            found = target(*args, **record.kwargs)
            if op.form.element is not None:
                found = found[op.form.element]
            if slots.output in switch.modules:
                found = switch.modules[slots.output](found)
            if slots.batch_norm is not None:
                module = switch.modules.get(slots.batch_norm)
                norm = module or self._program.original.get_submodule(slots.batch_norm)
                found = norm(found, *(record.norm_args or ()))
        return found  # type: ignore[no-any-return]

    def _replace(
        self, args: list[Any], place: int | None, name: str | None, switch: Switch
    ) -> None:
        if place is None or name not in switch.tensors:
            return
        args += [None] * (place + 1 - len(args))
        args[place] = switch.tensors[name]


class _RecordingRun(GraphRun):
    """One run that records.

    Args:
        program:
            The program.
        ops:
            The ops to be recorded, by name.
        copies:
            Whether the program writes into tensors.
        requires_grad:
            Whether the outputs of ops require gradients.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        ops: Mapping[str, TorchOp],
        *,
        copies: bool,
        requires_grad: bool,
    ) -> None:
        super().__init__(program.original)
        self._copies = copies
        self._requires_grad = requires_grad
        self._at = {op.node: name for name, op in ops.items()}
        self._behind = {
            program.slots[name].batch_norm or program.slots[name].output: name for name in ops
        }
        self._args: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._norm_args: dict[str, tuple[Any, ...]] = {}
        self._outputs: dict[str, torch.Tensor] = {}
        self._constants = {id(each) for each in self.module.buffers()}
        self._with_norm = {name for name, op in ops.items() if op.batch_norm is not None}

    def run_node(self, n: Node) -> Any:
        """Run a node, and record what is looked at."""
        if n.name in self._at:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            args = map_aggregate(args, self._kept)
            self._args[self._at[n.name]] = tuple(args), dict(kwargs)
        found = super().run_node(n)
        name = self._behind.get(str(n.target)) if n.op == "call_module" else None
        if name is None:
            return found
        if name in self._with_norm:
            self._norm_args[name] = tuple(self.fetch_args_kwargs_from_env(n)[0][1:])
        if self._requires_grad and not found.requires_grad:
            found.requires_grad_()
        self._outputs[name] = found
        return found.clone() if self._copies else found

    def _kept(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        is_constant = id(value) in self._constants
        return value.detach().clone() if self._copies and not is_constant else value.detach()

    def records(self) -> dict[str, OpRecord]:
        """What was recorded, by op."""
        return {
            name: OpRecord(*self._args[name], self._norm_args.get(name), output)
            for name, output in self._outputs.items()
        }
