"""The graph of a program as it is told of: its nodes, what depends on what, and its layers."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
import operator
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.base import GraphNode
from optuna_quant.backends.blocks import FlowNode
from optuna_quant.backends.blocks import LayerKind


if TYPE_CHECKING:
    from torch.fx import Node

    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram


_LAYERS = frozenset(
    {
        *("Linear", "MatMul", "linear", "matmul", "bmm", "baddbmm", "addmm", "mm", "einsum"),
        *("scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu"),
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "convolution"),
    }
)


@dataclass(frozen=True, eq=False)
class ProgramNode:
    """A node that computes a tensor.

    Args:
        name:
            The name of its op, or one of its own.
        op_type:
            What it is called.
        node:
            The node.
        reads:
            The names of the nodes that it reads from, those that only pass tensors on skipped.
        op:
            What can be quantized in it; None if nothing can.
    """

    name: str
    op_type: str
    node: Node
    reads: tuple[str, ...]
    op: TorchOp | None

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer: a convolution, a product, attention, or a recurrent one."""
        return self.op_type in _LAYERS or (self.op is not None and self.op.is_conv)

    @property
    def owner(self) -> str:
        """The name of the op that it is quantized with, or its own."""
        return self.reads[0] if self.is_folded else self.name

    @property
    def is_folded(self) -> bool:
        """Whether it is a batch normalization that belongs to the op before it."""
        return self.node.op == "call_module"


class ProgramFlow:
    """The nodes of a program and what they read.

    Args:
        program:
            The program.

    Attributes:
        nodes:
            The nodes that compute tensors, in order.
    """

    def __init__(self, program: SwitchedProgram) -> None:
        self._program = program
        self._ops = {op.node: op for op in program.ops}
        self._norms = {
            program.slots[op.name].batch_norm: op.batch_norm
            for op in program.ops
            if op.batch_norm is not None
        }
        self._outputs: dict[str, str] = {}
        self.nodes = tuple(self._found())

    def _found(self) -> Iterator[ProgramNode]:
        taken = {op.name for op in self._program.ops}
        # By the name of a node, those that have computed what it gives.
        makers: dict[str, tuple[str, ...]] = {}
        for node in self._program.original.graph.nodes:
            reads = dict.fromkeys(
                maker for each in node.all_input_nodes for maker in makers.get(each.name, ())
            )
            if node.op == "output":
                self._name_outputs(node, makers)
                continue
            if not self._computes(node):
                # What is no tensor is a shape, which says nothing of values.
                passes = node.op == "call_module" or node.target is operator.getitem
                makers[node.name] = tuple(reads) if passes else ()
                continue
            op = self._ops.get(node.name)
            name = self._norms.get(node.name) or node.name if op is None else op.name
            while op is None and name in taken:
                name += "_"
            taken.add(name)
            makers[node.name] = (name,)
            kind = op.op_type if op is not None else self._kind(node)
            yield ProgramNode(name, kind, node, tuple(reads), op)

    def _computes(self, node: Node) -> bool:
        """Whether a node computes a tensor: slots, shapes and elements of tuples do not."""
        if node.op == "call_module":
            return str(node.target) in self._norms
        if node.op != "call_function" or node.target is operator.getitem:
            return False
        value = node.meta.get("val")
        values = value if isinstance(value, (tuple, list)) else (value,)
        return any(isinstance(each, torch.Tensor) for each in values)

    def _kind(self, node: Node) -> str:
        if node.op == "call_module":
            return "batch_norm"
        name = str(getattr(node.target, "__name__", node.target))
        return name.partition(".")[0].removesuffix("_") or name

    def _name_outputs(self, node: Node, makers: Mapping[str, tuple[str, ...]]) -> None:
        values: Any = node.args[0]
        for name, value in zip(self._program.form.outputs, values, strict=True):
            if isinstance(name, str):
                self._outputs[name] = next(iter(makers.get(getattr(value, "name", ""), ())), "")

    def graph_nodes(self) -> tuple[GraphNode, ...]:
        """The nodes with those that each reads from."""
        return tuple(GraphNode(each.name, each.op_type, each.reads) for each in self.nodes)

    def outputs_behind(self, ops: Iterable[str]) -> tuple[str, ...]:
        """The outputs whose values can change when these ops compute something else."""
        changed = set(ops)
        for node in self.nodes:
            if not changed.isdisjoint(node.reads):
                changed.add(node.name)
        return tuple(name for name, maker in self._outputs.items() if maker in changed)

    def flow(self) -> list[FlowNode]:
        """The nodes, as blocks are looked for among them."""
        return [
            FlowNode(
                each.name,
                frozenset(each.reads),
                (each.name,),
                layer=self._layer(each) if each.is_layer else None,
                is_source=each.op_type in ("Embedding", "EmbeddingBag", "embedding"),
            )
            for each in self.nodes
        ]

    def _layer(self, node: ProgramNode) -> LayerKind:
        constants = [each for each in node.node.all_input_nodes if each.op == "get_attr"]
        shapes = [tuple(self._tensor(each).shape) for each in constants if self._has(each)]
        kind = (str(node.node.target),)
        attributes = repr(
            [
                value
                for value in (*node.node.args, *node.node.kwargs.values())
                if not isinstance(value, torch.fx.Node)
            ]
        )
        op = node.op
        kernel = op.shape[2:] if op is not None and op.is_conv and op.shape else None
        grouped = op is not None and op.groups != 1
        return LayerKind(
            (*kind, attributes, tuple(shapes)),
            (*kind, kernel, grouped, sum(len(shape) > 1 for shape in shapes)),
        )

    def _has(self, node: Node) -> bool:
        return isinstance(getattr(self._program.original, str(node.target), None), torch.Tensor)

    def _tensor(self, node: Node) -> torch.Tensor:
        tensor: torch.Tensor = getattr(self._program.original, str(node.target))
        return tensor
