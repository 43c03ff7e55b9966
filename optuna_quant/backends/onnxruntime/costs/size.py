"""The bytes that each op takes in a model file in each option, from models that are built."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.costs.classes import FLOAT
from optuna_quant.backends.onnxruntime.costs.classes import nearest_class
from optuna_quant.backends.onnxruntime.costs.classes import option_class
from optuna_quant.backends.onnxruntime.costs.fitting import Fitted
from optuna_quant.backends.onnxruntime.costs.fitting import Pairing
from optuna_quant.backends.onnxruntime.costs.fitting import fit_part
from optuna_quant.backends.onnxruntime.costs.fitting import merged
from optuna_quant.costs import Boundary
from optuna_quant.costs import CostTable


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.space.space import TuningSpace


Group = tuple[str, ...]
"""The ops on which it depends whether and how something is in the file; the first one leads."""


def group_bytes(model: onnx.ModelProto, graph: Graph, neighbours: Neighbours) -> dict[Group, int]:
    """How many bytes of a model depend on which ops.

    Args:
        model:
            The model.
        graph:
            The graph that it was built from.
        neighbours:
            The neighbours of the ops.

    Returns:
        The bytes of each group; those that depend on none are under the empty one.
    """
    reading = _Reading(model, graph, neighbours)
    found: dict[Group, int] = {}
    total = 0
    for message in (*model.graph.node, *model.graph.initializer):
        size = _field_bytes(message.ByteSize())
        total += size
        group = reading.group(message)
        found[group] = found.get(group, 0) + size
    found[()] = found.get((), 0) + model.ByteSize() - total
    return found


def _field_bytes(size: int) -> int:
    """The bytes of a message of a size in another one, with its tag and its length."""
    return 1 + max(1, (size.bit_length() + 6) // 7) + size


class _Reading:
    """Finds the ops on which the parts of a model depend."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, neighbours: Neighbours) -> None:
        self._ops = neighbours.position
        self._graph = graph
        self._neighbours = neighbours
        self._nodes = {node.name: node for node in graph.nodes}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._writers = {name: node for node in model.graph.node for name in node.output if name}

    def group(self, message: onnx.NodeProto | onnx.TensorProto) -> Group:
        if hasattr(message, "op_type"):
            if message.name in self._ops:
                return (message.name,)
            if message.name in self._nodes:
                return self._around(message)
            return self._of_new(message)
        return self._of_constant(message.name)

    def _around(self, node: onnx.NodeProto) -> Group:
        """An op's neighbours may change which of its inputs and outputs have new names."""
        op = self._neighbours.anchor.get(node.name)
        return () if op is None else (op, *self._neighbours.behind.get(op, ()))

    def _of_constant(self, name: str) -> Group:
        """All ops of the original graph that read a constant, or those that read a new one."""
        if name in self._graph.initializers:
            readers = [self._graph.nodes[i].name for i, _ in self._graph.readers.get(name, ())]
            if any(reader not in self._ops for reader in readers):
                return ()
            return tuple(dict.fromkeys(readers))
        found: dict[str, None] = {}
        for node in self._readers.get(name, ()):
            found.update(dict.fromkeys(self.group(node)))
        return tuple(found)

    def _of_new(self, node: onnx.NodeProto) -> Group:
        """A node that quantization has added."""
        if node.op_type == "Mul":
            return self._readers_of(node)  # The factors of the inputs of one op.
        tensor = self._tensor(node)
        if tensor is None:
            return self._of_shared_weight(node) or self._readers_of(node)
        if tensor in self._graph.initializers:
            return self._of_constant(tensor) or self._readers_of(node)
        makers = self._neighbours.makers.get(tensor, ())[:1]
        readers = [self._graph.nodes[i].name for i, _ in self._graph.readers.get(tensor, ())]
        direct = tuple(dict.fromkeys(reader for reader in readers if reader in self._ops))
        return (*makers, *(direct or self._readers_of(node)))

    def _tensor(self, node: onnx.NodeProto) -> str | None:
        """The tensor of the original graph that a node quantizes or gives back."""
        waiting, seen = [node], {node.name}
        while waiting:
            each = waiting.pop(0)
            for name in (*each.output, *each.input[:1]):
                if name in self._graph.producer or name in self._graph.initializers:
                    return str(name)
                for other in (self._writers.get(name), *self._readers.get(name, ())):
                    if (
                        other is not None
                        and other.name not in seen
                        and other.name not in self._nodes
                    ):
                        seen.add(other.name)
                        waiting.append(other)
        return None

    def _of_shared_weight(self, node: onnx.NodeProto) -> Group:
        """The ops with the same weight, if a node gives it to one of them."""
        for name in node.output:
            for reader in self._readers.get(name, ()):
                original = self._nodes.get(reader.name)
                for position, other in enumerate(reader.input[:2]):
                    if original is None or other != name:
                        continue
                    constant = original.input[position]
                    if self._graph.is_constant(constant):
                        return self._of_constant(constant)
        return ()

    def _readers_of(self, node: onnx.NodeProto) -> Group:
        """The ops that read what a new node makes, through others."""
        found: dict[str, None] = {}
        waiting, seen = [node], {node.name}
        while waiting:
            each = waiting.pop(0)
            if each.name in self._ops:
                found[each.name] = None
                continue
            for name in each.output:
                for other in self._readers.get(name, ()):
                    if other.name not in seen:
                        seen.add(other.name)
                        waiting.append(other)
        return tuple(sorted(found, key=lambda op: self._ops[op])[:1]) or ()


def size_table(
    space: TuningSpace,
    unchanged: int,
    models: Sequence[Mapping[Group, int]],
    states: Sequence[Mapping[str, str]],
) -> CostTable:
    """The table of what models have shown.

    Args:
        space:
            The tuning space.
        unchanged:
            The bytes of the original model.
        models:
            What :func:`group_bytes` says of each model.
        states:
            The class of each op in each model.
    """
    fitted = Fitted()
    ops = [op for tunable in space.tunables for op in tunable.ops]
    for op in ops:
        fitted.add(op, dict.fromkeys({state.get(op, FLOAT) for state in states}, 0.0))
    fixed = 0.0
    home = {op: tunable.name for tunable in space.tunables for op in tunable.ops}
    for group in dict.fromkeys(group for model in models for group in model):
        values = [float(model.get(group, 0)) for model in models]
        if not group:
            fixed = min(values)
            continue
        lead, *others = group
        if others and len({home.get(op) for op in group} | {None}) == 2:
            # They always have the same option, so each bears its share.
            for op in group:
                fit_part(fitted, op, (), states, [v / len(group) for v in values], ridge=1e-6)
            continue
        pairings = [Pairing(lead, tuple(others)), Pairing("", tuple(others))] if others else []
        fit_part(fitted, lead, pairings, states, values, ridge=1e-6)
    costs = {
        op: {o.label: _of_class(fitted.ops[op], option_class(o)) for o in tunable.options}
        for tunable in space.tunables
        for op in tunable.ops
    }
    for op, options in costs.items():
        options.setdefault(FLOAT, _of_class(fitted.ops[op], FLOAT))
    rebuilt = fixed + sum(options[FLOAT] for options in costs.values())
    boundaries = merged(fitted.boundaries)
    # A model in which nothing is quantized is the original one as it is.
    change = rebuilt - unchanged
    any_op = Boundary("", tuple(ops), quantize=change)
    return CostTable("size", "bytes", costs, (*boundaries, any_op), fixed - change)


def _of_class(known: Mapping[str, float], wanted: str) -> float:
    return known[wanted if wanted in known else nearest_class(wanted, list(known))]
