"""What ONNX Runtime really executes for each op of a model.

The runtime fuses, renames and drops nodes. What does an op's work is found by the names of nodes,
most of which fused nodes inherit, and otherwise by the tensors: an op whose result does not exist
in the optimized graph is part of the node that makes the next tensor that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
import os
from pathlib import Path
import re
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.executed.host_names import HostNames
from optuna_quant.backends.onnxruntime.executed.match import Match
from optuna_quant.backends.onnxruntime.executed.match import inherited_names
from optuna_quant.backends.onnxruntime.executed.match import plain_name
from optuna_quant.backends.onnxruntime.executed.optimized import optimize
from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    import onnxruntime

    from optuna_quant.backends.onnxruntime.executed.optimized import OptimizedModel
    from optuna_quant.backends.onnxruntime.executed.optimized import Providers


@dataclass(frozen=True)
class ExecutedOp:
    """What runs for one op.

    Args:
        kernel:
            The type of the node that does the op's work in the optimized graph, such as
            ``"QLinearConv"`` or ``"FusedConv"``. Empty if there is none, or it is not known.
        integer:
            Whether that kernel computes on integers.
        provider:
            The execution provider that runs it; :obj:`None` if the runtime does not tell.
        note:
            Anything else: that the op is part of another one's node, that it was
            constant-folded, that it computes in floats on dequantized values, or why nothing can
            be told. Empty if there is nothing.
    """

    kernel: str
    integer: bool
    provider: str | None
    note: str


def executed_ops(
    model: onnx.ModelProto | bytes | str | os.PathLike[str],
    op_names: Sequence[str],
    outputs: Mapping[str, str],
    *,
    providers: Providers,
    session_options: onnxruntime.SessionOptions | None = None,
    external_data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, ExecutedOp]:
    """Tell what the runtime really executes for each op.

    Args:
        model:
            The model, quantized or not.
        op_names:
            The names that the ops have in the original model.
        outputs:
            The output tensor that an op has in the original model, by op name. It helps to find
            ops that have other names in ``model``; ops may be missing here.
        providers:
            The execution providers.
        session_options:
            The options of the session, on whose optimization level the answer depends. They are
            changed while this runs and restored.
        external_data_dir:
            The directory that external data are relative to, unless ``model`` is a path.

    Returns:
        An entry for each of ``op_names``, in that order. It never fails because of what the
        runtime made of an op.

    Raises:
        Exception:
            Whatever the runtime raises if it cannot load the model.
    """
    if isinstance(model, onnx.ModelProto):
        proto, content = model, model.SerializeToString()
    elif isinstance(model, bytes):
        proto, content = onnx.ModelProto.FromString(model), model
    else:
        content, external_data_dir = str(Path(model)), None
        proto = onnx.load(content, load_external_data=False)
    optimized = optimize(
        content,
        size=_size(proto),
        providers=providers,
        session_options=session_options,
        external_data_dir=external_data_dir,
    )
    if optimized.graph is None:
        note = "not known: the runtime cannot show its graph with these providers"
        return dict.fromkeys(op_names, ExecutedOp("", False, optimized.sole_provider, note))
    names = OpFinder(proto.graph, op_names, outputs)
    match = Match(proto.graph, optimized.graph)
    facts = _Facts(optimized)
    nodes = {op: names.find(op) for op in op_names}
    known = HostNames(match, {node: op for op, node in nodes.items() if node is not None})
    return {op: _executed(op, node, match, facts, known) for op, node in nodes.items()}


def _size(model: onnx.ModelProto) -> int:
    # At four bytes an element; external data are not in the message.
    return sum(4 * math.prod(tensor.dims) for tensor in model.graph.initializer)


def _executed(
    op: str, node: int | None, match: Match, facts: _Facts, names: HostNames
) -> ExecutedOp:
    if node is None:
        return ExecutedOp("", False, None, "not known: the model has no such op")
    hosts = match.hosts(node)
    if not hosts:
        folded = match.is_constant(node)
        note = "constant-folded" if folded else "not known: no trace in the optimized graph"
        return ExecutedOp("", False, None, note)
    source = match.source[node]
    kernels = list(dict.fromkeys(host.op_type for host in hosts))
    integer = all(facts.is_integer(host) for host in hosts)
    provider = facts.provider(source, hosts)
    if len(kernels) > 1:
        listed = ", ".join(map(names.shown, hosts))
        return ExecutedOp("", integer, provider, f"not known: part of one or more of {listed}")
    notes = []
    own = plain_name(hosts[0].name) == source.name or source.op_type in kernels[0]
    if not (own and source.name.startswith(op)):
        notes.append("part of " + ", ".join(map(names.shown, hosts)))
    if any(facts.reads_dequantized(host) for host in hosts) and not integer:
        notes.append("computes in floats on dequantized values")
    return ExecutedOp(kernels[0], integer, provider, "; ".join(notes))


# From an op to a node of the model that the runtime was given.

_GLUE = frozenset(
    {"Add", "Cast", "DequantizeLinear", "Identity", "Mul", "QuantizeLinear", "Reshape"}
)
"""Types of the nodes that quantizers put between an integer kernel and the op's old result."""


class OpFinder:
    """Finds ops in a model in which a quantizer may have renamed them.

    Args:
        graph:
            The graph of the model.
        op_names:
            The names of the ops in the original model.
        outputs:
            The output tensor of each there, by op name.
    """

    def __init__(
        self, graph: onnx.GraphProto, op_names: Sequence[str], outputs: Mapping[str, str]
    ) -> None:
        self._nodes = graph.node
        self._by_name = {node.name: i for i, node in enumerate(graph.node) if node.name}
        self._producer = {name: i for i, node in enumerate(graph.node) for name in node.output}
        self._ops = set(op_names)
        self._outputs = outputs

    def find(self, op: str) -> int | None:
        """The position of the node that is the op; None if there is none."""
        if op in self._by_name:
            return self._by_name[op]
        found = self._by_output(self._outputs.get(op, ""))
        return self._by_prefix(op) if found is None else found

    def _by_output(self, tensor: str) -> int | None:
        """The integer kernel behind a tensor, or the node that makes it."""
        first = self._producer.get(tensor)
        waiting, seen = [] if first is None else [first], set[int]()
        while waiting:
            i = waiting.pop(0)
            node = self._nodes[i]
            if i in seen:
                continue
            seen.add(i)
            if _INTEGER.fullmatch(node.op_type):
                return i
            if node.op_type in _GLUE and node.name not in self._ops:
                waiting += [self._producer[name] for name in node.input if name in self._producer]
        return first

    def _by_prefix(self, op: str) -> int | None:
        """The first integer kernel whose name begins with the op's, and with no longer one."""
        for name, i in self._by_name.items():
            rest = name.removeprefix(op)
            if rest != name and rest[:1] in "_/:" and _INTEGER.fullmatch(self._nodes[i].op_type):
                ends = [k for k, char in enumerate(name) if char in "_/:" and k > len(op)]
                if not any(name[:end] in self._ops for end in ends):
                    return i
        return None


# What is to be said of a node of the optimized graph.

_INTEGER = re.compile(
    r"QLinear\w+|QGemm|QAttention|QMoE|QOrdered\w+|ConvInteger\w*|MatMulInteger\w*"
    r"|DynamicQuantize(MatMul|LSTM)"
)
_WRITES_INTEGERS = re.compile(r"QLinear\w+|QGemm|NhwcMaxPool")
_CONVERTERS = frozenset({"Cast", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_FLOAT_ON_TABLES = frozenset({"GatherBlockQuantized", "MatMulNBits", "QEmbedLayerNormalization"})
_INTEGER_TYPES = frozenset(
    {
        onnx.TensorProto.INT4,
        onnx.TensorProto.UINT4,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT16,
        onnx.TensorProto.UINT16,
    }
)
_SHAPES = frozenset({"Shape", "Size"})
_WRITES_OTHERS = _SHAPES | {"ArgMax", "ArgMin", "Equal", "Greater", "Less"}
_INT8_ACCURACY = 4
"""The accuracy level at which MatMulNBits quantizes its activation and computes on integers."""


class _Facts:
    """What is known of the nodes of an optimized graph."""

    def __init__(self, optimized: OptimizedModel) -> None:
        assert optimized.graph is not None
        self._optimized = optimized
        self._integers = {
            tensor.name
            for tensor in optimized.graph.initializer
            if tensor.data_type in _INTEGER_TYPES
        }
        self._integers.update(
            value.name
            for value in optimized.graph.input
            if value.type.tensor_type.elem_type in _INTEGER_TYPES
        )
        weights = {tensor.name for tensor in optimized.graph.initializer}
        self._dequantized: set[str] = set()
        for node in optimized.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] not in weights:
                self._dequantized.update(node.output)
            elif node.op_type == "ReorderInput" and node.input[0] in self._dequantized:
                # The same values in the blocked layout.
                self._dequantized.update(node.output)
            elif self._writes_integers(node):
                self._integers.update(node.output if node.op_type == "Split" else node.output[:1])

    def is_integer(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes on integers."""
        if _INTEGER.fullmatch(node.op_type):
            return True
        if node.op_type == "MatMulNBits":
            return bool(node_attributes(node).get("accuracy_level", 0) == _INT8_ACCURACY)
        if node.op_type in _CONVERTERS | _FLOAT_ON_TABLES:
            return False
        return any(name in self._integers for name in node.input[:1])

    def reads_dequantized(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads an activation that a DequantizeLinear makes."""
        return node.op_type not in _SHAPES and any(
            name in self._dequantized for name in node.input
        )

    def provider(self, source: onnx.NodeProto, hosts: Sequence[onnx.NodeProto]) -> str | None:
        """The provider that runs an op."""
        if self._optimized.sole_provider:
            return self._optimized.sole_provider
        known = self._optimized.providers
        names = [source.name, *(name for host in hosts for name in inherited_names(host.name))]
        return next((known[name] for name in names if name in known), None)

    def _writes_integers(self, node: onnx.NodeProto) -> bool:
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
            return True
        if node.op_type == "QGemm":
            return len(node.input) > 7 and bool(node.input[7])
        if _INTEGER.fullmatch(node.op_type):
            return _WRITES_INTEGERS.fullmatch(node.op_type) is not None
        return self.is_integer(node) and node.op_type not in _WRITES_OTHERS
