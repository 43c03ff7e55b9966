"""From a plan to the program that is deployed, without tracing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from dataclasses import field
import operator
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.fx import GraphModule

from optuna_quant.backends.torch.candidates.plan import limits_of
from optuna_quant.backends.torch.candidates.weights import ChannelWeight
from optuna_quant.backends.torch.converted.bags import read_bag
from optuna_quant.backends.torch.converted.exporting import ORIGIN
from optuna_quant.backends.torch.converted.lifting import lift_quantizers
from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.reference_ops import QUANTIZED
from optuna_quant.backends.torch.converted.tensors import ProgramTensors
from optuna_quant.backends.torch.converted.weight_nodes import channel_weight
from optuna_quant.backends.torch.converted.weight_nodes import grouped_tensors
from optuna_quant.backends.torch.converted.weight_nodes import grouped_values
from optuna_quant.backends.torch.graph.ops import writes_in_place


if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.fx import Node

    from optuna_quant.backends.ranges.qparams import Params
    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.candidates.plan import OpPlan
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight


_WITH_KERNELS = ("Linear", "Conv1d", "Conv2d")

SMALLEST_SCALE = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class WrittenOp:
    """An op in the program that is deployed.

    Args:
        name:
            Its name.
        op_type:
            What it is called.
        mode:
            ``"fp32"``, ``"bf16"``, ``"static"``, ``"dynamic"`` or ``"weight_only"``.
        tensors:
            The paths of its tensors by what they are; without a weight, none.
        bits:
            Bits of the codes of its weight, if they are in groups.
        group_size:
            Inputs of a group.
        shape:
            The shape of its weight.
    """

    name: str
    op_type: str
    mode: str
    tensors: Mapping[str, str] = field(default_factory=dict)
    bits: int | None = None
    group_size: int | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class WrittenProgram:
    """The program that is deployed.

    Args:
        graph:
            Takes the inputs in their order and gives the outputs as a tuple, as the switched
            program does; the node of each op has its name in its ``meta["custom"]``.
        ops:
            What became of the ops, in their order.
    """

    graph: GraphModule
    ops: tuple[WrittenOp, ...]


def write_program(program: SwitchedProgram, plan: ModelPlan) -> WrittenProgram:
    """Write the quantized program of a plan: PyTorch's reference form of it.

    Integers are in buffers; quantizers and dequantizers are those of PT2E. All it computes with
    is on the CPU. Batch normalizations are folded into the convolutions before them.

    Args:
        program:
            The program.
        plan:
            How each op runs.
    """
    return _Writer(program, plan).write()


class _Writer:
    def __init__(self, program: SwitchedProgram, plan: ModelPlan) -> None:
        self._program = program
        self._plan = plan
        self._graph = copy.deepcopy(program.original.graph)
        for node in self._graph.nodes:
            # Not where the user's code is, which is no part of what is deployed.
            node.meta = {key: value for key, value in node.meta.items() if key == "val"}
        self._nodes = {node.name: node for node in self._graph.nodes}
        self._root = torch.nn.Module()
        self._tensors = ProgramTensors(self._root, self._graph)
        self._written: list[WrittenOp] = []

    def write(self) -> WrittenProgram:
        slots = {str(node.target): node for node in self._graph.nodes if node.op == "call_module"}
        own: set[str] = set()
        for op in self._program.ops:
            place = self._program.slots[op.name]
            own.update(name for name in (place.weight, place.bias) if name is not None)
            self._fold(op, slots)
        for node in list(self._graph.nodes):
            if node.op == "get_attr" and node.target not in own:
                self._copy(node)
        activations = {op.name: self._bare(op, slots) for op in self._program.ops}
        self._quantizers: dict[object, Node] = {}
        self._epochs = self._count_writes()
        for op in self._program.ops:
            self._write(op, activations[op.name])
        for node in reversed(list(self._graph.nodes)):
            if node.op == "get_attr" and not node.users:
                self._graph.erase_node(node)
        if not any(writes_in_place(node) for node in self._graph.nodes):
            lift_quantizers(self._graph)
        self._graph.lint()
        graph = GraphModule(self._root, self._graph, class_name="QuantizedProgram").eval()
        return WrittenProgram(graph, tuple(self._written))

    def _fold(self, op: TorchOp, slots: Mapping[str, Node]) -> None:
        name = self._program.slots[op.name].batch_norm
        if name is not None:
            norm = slots[name]
            norm.replace_all_uses_with(norm.args[0])  # type: ignore[arg-type]
            self._graph.erase_node(norm)

    def _copy(self, node: Node) -> None:
        value = getattr(self._program.original, str(node.target))
        path = self._program.paths.get(str(node.target), str(node.target))
        if isinstance(value, torch.Tensor):
            node.target = self._tensors.add(path, value, _identity(value))
        else:
            setattr(self._root, str(node.target), value)

    def _bare(self, op: TorchOp, slots: Mapping[str, Node]) -> list[Node]:
        """Take the modules of an op's slots away; returns what gives its activations."""
        place = self._program.slots[op.name]
        found = []
        for name in (*place.activations, *place.addends, place.output):
            slot = slots[name]
            source: Any = slot.args[0]
            slot.replace_all_uses_with(source)
            self._graph.erase_node(slot)
            if name in place.activations:
                found.append(source)
        return found

    def _count_writes(self) -> dict[str, int]:
        """How many nodes write in place before each node."""
        found, count = {}, 0
        for node in self._graph.nodes:
            count += writes_in_place(node)
            found[node.name] = count
        return found

    def _write(self, op: TorchOp, sources: list[Node]) -> None:
        node = self._nodes[op.node]
        plan = self._plan.ops.get(op.name)
        node.meta = {**node.meta, "custom": {ORIGIN: op.name}}
        with self._graph.inserting_before(node):
            if plan is not None:
                self._write_activations(node, plan)
            if op.form.weight is None:
                mode = "fp32" if plan is None else plan.mode
                self._written.append(WrittenOp(op.name, op.op_type, mode))
                return
            grouped = plan is not None and not isinstance(plan.weight, ChannelWeight | None)
            if grouped:
                assert plan is not None
                written = self._write_grouped(node, plan)
            else:
                written = self._write_weight(node, op, plan)
        self._written.append(written)

    def _write_activations(self, node: Node, plan: OpPlan) -> None:
        args = list(node.args)
        for number, place in enumerate(plan.op.form.activations):
            source: Any = args[place]
            if plan.mode == "static":
                args[place] = self._static(source, plan.activations[number], node)
            elif plan.mode == "dynamic" and plan.dynamic is not None:
                args[place] = self._dynamic(source, *plan.dynamic)
            elif plan.mode == "bf16":
                args[place] = self._graph.call_function(ATEN.to.dtype, (source, torch.bfloat16))
        for place in plan.op.form.addends if plan.mode == "bf16" else ():
            args[place] = self._graph.call_function(ATEN.to.dtype, (args[place], torch.bfloat16))
        node.args = tuple(args)
        if plan.mode == "bf16":
            readers = list(node.users)
            with self._graph.inserting_after(node):
                after = self._graph.call_function(ATEN.to.dtype, (node, torch.float32))
            for reader in readers:
                reader.replace_input_with(node, after)

    def _static(self, source: Node, params: Params, node: Node) -> Node:
        """A quantizer, which ops with the same parameters share, and a dequantizer of its own."""
        numbers = _numbers(params)
        key = (source, numbers, self._epochs[node.name])
        if key not in self._quantizers:
            self._quantizers[key] = self._graph.call_function(
                QUANTIZED.quantize_per_tensor.default, (source, *numbers)
            )
        return self._graph.call_function(
            QUANTIZED.dequantize_per_tensor.default, (self._quantizers[key], *numbers)
        )

    def _dynamic(self, source: Node, dtype: str, scheme: str) -> Node:
        call = self._graph.call_function
        low, high = limits_of(dtype)
        kind = _kind(dtype)
        packet = (
            QUANTIZED.choose_qparams_symmetric if scheme == "sym" else QUANTIZED.choose_qparams
        )
        both = call(packet.tensor, (source, low, high, SMALLEST_SCALE, kind))
        scale = call(operator.getitem, (both, 0))
        point = call(operator.getitem, (both, 1))
        rest = (scale, point, low, high, kind)
        quantized = call(QUANTIZED.quantize_per_tensor.tensor, (source, *rest))
        return call(QUANTIZED.dequantize_per_tensor.tensor, (quantized, *rest))

    def _write_weight(self, node: Node, op: TorchOp, plan: OpPlan | None) -> WrittenOp:
        form = op.form.weight
        assert form is not None and op.weight is not None
        paths: dict[str, str]
        if plan is not None and isinstance(plan.weight, ChannelWeight):
            found, paths = channel_weight(
                self._graph,
                self._tensors,
                op.weight,
                plan.weight,
                has_kernel=op.op_type in _WITH_KERNELS,
            )
        elif plan is None and op.batch_norm is None:
            # Other nodes may read the same parameter, rearranged or not.
            assert op.weight_view is not None
            tensor = self._program.values[op.weight]
            paths = {"weight": self._tensors.add(op.weight, tensor, _identity(tensor))}
            found = self._tensors.read(paths["weight"])
            for step in op.weight_view.steps:
                found = self._graph.call_function(
                    step.target, (found, *step.args), dict(step.kwargs)
                )
        else:
            tensor = self._program.weight(op)
            key = _identity(tensor) if op.batch_norm is None else None
            if plan is not None and plan.mode == "bf16":
                tensor, key = tensor.bfloat16(), None if key is None else ("bf16", *key)
            paths = {"weight": self._tensors.add(op.weight, tensor, key)}
            found = self._tensors.read(paths["weight"])
        args = list(node.args)
        args[form.position] = found
        node.args = tuple(args)
        self._write_bias(node, op, plan, paths)
        mode = "fp32" if plan is None else plan.mode
        return WrittenOp(op.name, op.op_type, mode, paths, shape=op.shape)

    def _write_bias(
        self, node: Node, op: TorchOp, plan: OpPlan | None, paths: dict[str, str]
    ) -> None:
        assert op.form.weight is not None and op.weight is not None
        place = op.form.weight.bias
        if place is None:
            return
        bias = self._program.bias(op)
        args = list(node.args)
        args[place] = None
        if bias is not None:
            key = _identity(bias) if op.batch_norm is None else None
            if plan is not None and plan.mode == "bf16":
                bias, key = bias.bfloat16(), None if key is None else ("bf16", *key)
            path = self._program.bias_path(op)
            if path is None:  # The module has none: it is that of the batch normalization.
                owner, dot, last = op.weight.rpartition(".")
                name = last.replace("weight", "bias") if "weight" in last else f"{last}_bias"
                path = f"{owner}{dot}{name}"
            paths["bias"] = self._tensors.add(path, bias, key)
            args[place] = self._tensors.read(paths["bias"])
        node.args = tuple(args)

    def _write_grouped(self, node: Node, plan: OpPlan) -> WrittenOp:
        op: TorchOp = plan.op
        weight: GroupedWeight = plan.weight  # type: ignore[assignment]
        assert op.weight is not None and op.form.weight is not None
        paths = grouped_tensors(self._tensors, op.weight, weight)
        codes, scales = (self._tensors.read(paths[each]) for each in ("codes", "scales"))
        points = self._tensors.read(paths["zero_points"]) if "zero_points" in paths else None
        if not op.form.activations:
            indices: Any = node.args[1]
            codes, scales = self._rows(codes, indices), self._rows(scales, indices)
            points = None if points is None else self._rows(points, indices)
            found = grouped_values(self._graph, codes, scales, points, weight)
            if op.op_type == "EmbeddingBag":
                read_bag(node, found, weight.codes.shape[1])
            else:
                found.meta = dict(node.meta)
                node.replace_all_uses_with(found)
                self._graph.erase_node(node)
        else:
            args = list(node.args)
            if "input_scale" in paths:
                factors = self._tensors.read(paths["input_scale"])
                args[0] = self._graph.call_function(ATEN.mul.Tensor, (args[0], factors))
            place = op.form.weight.position
            args[place] = grouped_values(self._graph, codes, scales, points, weight)
            node.args = tuple(args)
            self._write_bias(node, op, plan, paths)
        return WrittenOp(
            op.name,
            op.op_type,
            plan.mode,
            paths,
            bits=weight.bits,
            group_size=weight.group_size,
            shape=op.shape,
        )

    def _rows(self, table: Node, indices: Node) -> Node:
        return self._graph.call_function(ATEN.embedding.default, (table, indices))


def _numbers(params: Params) -> tuple[Any, ...]:
    limits = limits_of(params.dtype)
    return params.scale, params.zero_point, *limits, _kind(params.dtype)


def _kind(dtype: str) -> torch.dtype:
    return torch.uint8 if limits_of(dtype)[0] == 0 else torch.int8


def _identity(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """Stands for the memory of a tensor of the program."""
    if not tensor.numel():
        return None
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype
