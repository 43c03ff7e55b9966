"""An exported program whose ops are switched in place."""

from __future__ import annotations

from collections.abc import Mapping
import copy
from dataclasses import dataclass
from dataclasses import field
import operator
import re
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

from optuna_quant.backends.torch.graph.constant_view import constant_view
from optuna_quant.backends.torch.graph.in_place import written_by
from optuna_quant.backends.torch.graph.normal_form import normalize
from optuna_quant.backends.torch.graph.ops import TorchOp
from optuna_quant.backends.torch.graph.ops import find_ops
from optuna_quant.backends.torch.graph.ops import writes_in_place
from optuna_quant.backends.torch.graph.slots import BatchNorm
from optuna_quant.backends.torch.graph.slots import Unchanged
from optuna_quant.backends.torch.graph.zero_nodes import zero_nodes
from optuna_quant.backends.torch_program.quiet import without_idle_output


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch.fx import Graph
    from torch.fx import Node

    from optuna_quant.backends.torch.graph.constant_view import ConstantView
    from optuna_quant.backends.torch_program.export import ModuleProgram


@dataclass(frozen=True)
class Slots:
    """Where an op is switched: the names of attributes of the graph module.

    Args:
        activations:
            Of the modules that its activations go through, in their order.
        addends:
            Of the modules that what is added to its product goes through, in their order.
        output:
            Of the module that its output goes through.
        weight:
            Of its weight; None if it has none.
        bias:
            Of its bias, which may be None; None if it takes none.
        batch_norm:
            Of the module in the place of its batch normalization; None if it has none.
    """

    activations: tuple[str, ...]
    addends: tuple[str, ...]
    output: str
    weight: str | None
    bias: str | None
    batch_norm: str | None


@dataclass(frozen=True, eq=False)
class BatchNormOf:
    """A batch normalization with fixed statistics: its tensors, by their paths.

    Args:
        scale:
            The scale; None for ones.
        shift:
            The shift; None for zeros.
        mean:
            The mean.
        variance:
            The variance.
        epsilon:
            What is added to the variance.
    """

    scale: str | None
    shift: str | None
    mean: str
    variance: str
    epsilon: float

    def factor_and_summand(
        self, values: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each channel is multiplied with, and what is added to it afterwards.

        Args:
            values:
                Tensors by path.
        """
        # In double precision, so that the rounding is that of one number.
        factor = (values[self.variance].double() + self.epsilon).rsqrt()
        if self.scale is not None:
            factor = factor * values[self.scale].double()
        summand = -values[self.mean].double() * factor
        if self.shift is not None:
            summand = summand + values[self.shift].double()
        return factor.float(), summand.float()


@dataclass(frozen=True, eq=False)
class Switch:
    """What is other than in the original program.

    Args:
        modules:
            Modules by the name of their slot.
        tensors:
            Weights and biases by the name of their slot.
    """

    modules: dict[str, torch.nn.Module] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor | None] = field(default_factory=dict)


class SwitchedProgram:
    """An exported program as a graph module in which each op can be switched.

    With nothing switched it computes what the program does, bit for bit. A switched copy shares
    all tensors with it that are not replaced; making one takes no compilation.

    Args:
        exported:
            The program; its parameters are copied.
        device:
            Where it computes; None for where the parameters are.

    Attributes:
        form:
            How it is called.
        ops:
            The ops that can be switched, in order.
        slots:
            Where each is switched, by its name.
        original:
            The graph module with nothing switched. It takes the inputs in their order and gives
            the outputs as a tuple.
        writes:
            Whether an operator of it writes into a tensor, which may be an input.
        zeros:
            The nodes that give zeros whatever the inputs are.
        values:
            The parameters, buffers and constants of the program, by their paths.
    """

    def __init__(self, exported: ModuleProgram, device: torch.device | None = None) -> None:
        self.form = exported.form
        with without_idle_output():
            module = exported.program.module(check_guards=False)
            graph = copy.deepcopy(module.graph)  # Without the module, which lacks the slots.
        graph.set_codegen(CodeGen())
        _check_buffers(graph)
        _copy_written_inputs(graph)
        normalize(graph, exported.lifted)
        self.writes = any(map(writes_in_place, graph.nodes))
        self.zeros = frozenset() if self.writes else zero_nodes(graph)
        self.ops: tuple[TorchOp, ...] = find_ops(graph, exported.module_paths())
        nodes = {node.name: node for node in graph.nodes}
        self._batch_norms = {
            op.name: _batch_norm_of(nodes[op.batch_norm])
            for op in self.ops
            if op.batch_norm is not None
        }
        biases = {op.name: _bias_path(nodes[op.node], op) for op in self.ops}
        root = torch.nn.Module()
        self._name_of: dict[str, str] = {}
        self.values: dict[str, torch.Tensor] = {}
        for node in graph.nodes:
            if node.op == "get_attr":
                node.target = self._flat(root, module, str(node.target), device)
        self._folded: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        views = {op.name: op.weight_view for op in self.ops if op.weight_view is not None}
        with torch.no_grad():
            weights = {name: view.of(self.values[view.path]) for name, view in views.items()}
        self.slots = {
            op.name: _add_slots(nodes[op.node], op, nodes, root, weights.get(op.name))
            for op in self.ops
        }
        self._path_of_slot: dict[str, str] = {}
        self._view_of_slot: dict[str, ConstantView] = {}
        for op in self.ops:
            slots = self.slots[op.name]
            if slots.weight is not None and op.weight_view is not None:
                self._view_of_slot[slots.weight] = op.weight_view
            if slots.bias is not None and biases[op.name] is not None:
                self._path_of_slot[slots.bias] = str(biases[op.name])
        for node in reversed(list(graph.nodes)):
            if not node.users and constant_view(node) is not None:
                graph.erase_node(node)
        graph.lint()
        root.eval()
        self.original = GraphModule(root, graph, class_name="SwitchedProgram").eval()
        for slots in self.slots.values():
            if slots.bias is not None and slots.bias not in self.original._buffers:
                # What is None became an attribute, which would hide the buffer of a copy.
                delattr(self.original, slots.bias)
                self.original.register_buffer(slots.bias, None)

    def _flat(
        self, root: torch.nn.Module, module: torch.nn.Module, target: str, device: Any
    ) -> str:
        """Copy a parameter into the root, where it has a name without dots."""
        if target not in self._name_of:
            value: Any = module
            for part in target.split("."):
                value = getattr(value, part)
            name = f"p{len(self._name_of)}_" + re.sub(r"\W", "_", target)
            if isinstance(value, torch.Tensor):
                self.values[target] = value.detach().clone().to(device)
                root.register_buffer(name, self.values[target])
            else:
                setattr(root, name, value)
            self._name_of[target] = name
        return self._name_of[target]

    @property
    def paths(self) -> dict[str, str]:
        """Where the module has the parameters of the graph module, by their names in it."""
        return {name: path for path, name in self._name_of.items()}

    def switched(self, switch: Switch) -> GraphModule:
        """The program with ops switched.

        Args:
            switch:
                What is other than in the original.
        """
        original = self.original
        other: GraphModule = object.__new__(type(original))  # Each has a class of its own.
        other.__dict__.update(original.__dict__)
        other.__dict__["_modules"] = {**original._modules, **switch.modules}
        other.__dict__["_buffers"] = {**original._buffers, **switch.tensors}
        return other

    def with_values(self, values: Mapping[str, torch.Tensor]) -> SwitchedProgram:
        """The same program with other parameters; those that are not given stay as they are.

        Gradients flow through to them.

        Args:
            values:
                Tensors by path, as in :attr:`values`.
        """
        tensors: dict[str, torch.Tensor | None] = {
            name: values[path]
            for path, name in self._name_of.items()
            if path in values and name in self.original._buffers
        }
        for slot, path in self._path_of_slot.items():
            if path in values:
                tensors[slot] = values[path]
        for slot, view in self._view_of_slot.items():
            if view.path in values:
                tensors[slot] = view.of(values[view.path])
        other = copy.copy(self)
        other.original = self.switched(Switch(tensors=tensors))
        other.values = {**self.values, **values}
        other._folded = {}
        return other

    def weight(self, op: TorchOp) -> torch.Tensor:
        """The weight of an op, with its batch normalization folded in."""
        weight = self._tensor(self.slots[op.name].weight)
        assert weight is not None
        if op.batch_norm is None:
            return weight
        factor, _ = self._fold(op)
        if op.is_transposed:
            grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
            factors = factor.reshape(op.groups, 1, -1, *[1] * (weight.ndim - 2))
            return (grouped * factors).reshape(weight.shape)
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))

    def bias(self, op: TorchOp) -> torch.Tensor | None:
        """The bias of an op, with its batch normalization folded in; None if there is none."""
        name = self.slots[op.name].bias
        bias = None if name is None else self._tensor(name)
        if op.batch_norm is None:
            return bias
        factor, summand = self._fold(op)
        return summand if bias is None else bias * factor + summand

    def bias_path(self, op: TorchOp) -> str | None:
        """Where the module has the bias of an op; None if it has none."""
        slot = self.slots[op.name].bias
        return None if slot is None else self._path_of_slot.get(slot)

    def _fold(self, op: TorchOp) -> tuple[torch.Tensor, torch.Tensor]:
        if op.name not in self._folded:
            norm = self._batch_norms[op.name]
            self._folded[op.name] = norm.factor_and_summand(self.values)
        return self._folded[op.name]

    def _tensor(self, name: str | None) -> torch.Tensor | None:
        return None if name is None else self.original._buffers[name]

    @property
    def device(self) -> torch.device:
        """Where the program computes."""
        tensors = self.original._buffers.values()
        return next((each.device for each in tensors if each is not None), torch.device("cpu"))

    def tensors_of(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
        """Arrays as tensors, where the program computes."""
        device = self.device
        return {name: tensor_of(array).to(device) for name, array in feed.items()}

    def inputs_of_call(self, tensors: Mapping[str, Any]) -> list[Any]:
        """The arguments of the graph module, from the inputs by name, where it computes.

        They are copies if the program may write into them.
        """
        device = self.device
        given = {
            name: each.to(device, copy=self.writes) if isinstance(each, torch.Tensor) else each
            for name, each in tensors.items()
        }
        return self.form.flat_inputs(given)

    def named_outputs(self, outputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """What the graph module gives, by name; what is constant is left out."""
        return self.form.named_outputs(outputs)


def tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """An array as a tensor, which shares its memory where PyTorch may write into that.

    Args:
        array:
            The array.
    """
    found = np.ascontiguousarray(array)
    return torch.from_numpy(found if found.flags.writeable else found.copy())


def _copy_written_inputs(graph: Graph) -> None:
    """Let a program write into a copy where it would write into an input, or into a view of it."""
    written = {tensor for node in graph.nodes for tensor in written_by(node)}
    for node in list(graph.nodes):
        if node.op != "placeholder" or node not in written:
            continue
        readers = list(node.users)
        with graph.inserting_after(node):
            copied = graph.call_function(torch.ops.aten.clone.default, (node,))
        copied.meta.update(node.meta)
        for reader in readers:
            reader.replace_input_with(node, copied)


def _check_buffers(graph: Graph) -> None:
    """Refuse a program that writes into what it keeps.

    Raises:
        ValueError:
            If it does, so that what a candidate gives would depend on those before it.
    """
    for node in graph.nodes:
        kept = next((each for each in written_by(node) if each.op == "get_attr"), None)
        if kept is not None:
            raise ValueError(
                f"The module writes into {kept.target!r} when it is called in evaluation mode, "
                "so what it gives depends on the calls before. Give a module that keeps no state "
                "between calls, or pass the state as an argument."
            )


def _batch_norm_of(norm: Node) -> BatchNormOf:
    scale, shift, mean, variance = (
        None if node is None else str(node.target)  # type: ignore[union-attr]
        for node in norm.args[1:5]
    )
    assert mean is not None and variance is not None
    epsilon: Any = norm.args[7]
    return BatchNormOf(scale, shift, mean, variance, float(epsilon))


def _bias_path(node: Node, op: TorchOp) -> str | None:
    place = None if op.form.weight is None else op.form.weight.bias
    if place is None or len(node.args) <= place or node.args[place] is None:
        return None
    bias: Any = node.args[place]
    return str(bias.target)


def _add_slots(
    node: Node,
    op: TorchOp,
    nodes: Mapping[str, Node],
    root: torch.nn.Module,
    weight_tensor: torch.Tensor | None,
) -> Slots:
    graph, args = node.graph, list(node.args)

    def through(places: Sequence[int], letter: str) -> tuple[str, ...]:
        names = []
        for number, place in enumerate(places):
            source: Any = args[place]
            name = f"{node.name}_{letter}{number}"
            root.add_module(name, Unchanged())
            with graph.inserting_before(node):
                args[place] = graph.call_module(name, (source,))
            names.append(name)
        return tuple(names)

    activations = through(op.form.activations, "x")
    addends = through(op.form.addends, "a")
    weight = bias = None
    if op.form.weight is not None:
        weight = f"{node.name}_w"
        args[op.form.weight.position] = _own(node, weight_tensor, weight, root)
        if op.form.weight.bias is not None:
            bias = f"{node.name}_b"
            place = op.form.weight.bias
            args += [None] * (place + 1 - len(args))
            parameter: Any = args[place]
            tensor = None if parameter is None else getattr(root, parameter.target)
            args[place] = _own(node, tensor, bias, root)
    node.args = tuple(args)
    output = f"{node.name}_y"
    root.add_module(output, Unchanged())
    given = node if op.form.element is None else _element(node, op.form.element)
    readers = list(given.users)
    with graph.inserting_after(given):
        after = graph.call_module(output, (given,))
    for reader in readers:
        reader.replace_input_with(given, after)
    batch_norm = None
    if op.batch_norm is not None:
        norm = nodes[op.batch_norm]
        batch_norm = f"{norm.name}_n"
        root.add_module(batch_norm, BatchNorm())
        with graph.inserting_before(norm):
            replaced = graph.call_module(batch_norm, norm.args)
        replaced.meta.update(norm.meta)
        norm.replace_all_uses_with(replaced)
        graph.erase_node(norm)
    return Slots(activations, addends, output, weight, bias, batch_norm)


def _element(node: Node, number: int) -> Node:
    """The node that takes an element of the tuple that a node gives."""
    for user in node.users:
        if user.target is operator.getitem and user.args[1] == number:
            return user
    with node.graph.inserting_after(node):
        return node.graph.call_function(operator.getitem, (node, number))


def _own(node: Node, tensor: torch.Tensor | None, name: str, root: torch.nn.Module) -> Node:
    """A tensor under a name of its own, so that no other op shares it."""
    root.register_buffer(name, tensor)
    with node.graph.inserting_before(node):
        return node.graph.get_attr(name)
