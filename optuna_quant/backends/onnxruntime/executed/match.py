"""Which nodes of an optimized graph do the work of which nodes of the model it was made from."""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
import re
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    import onnx


_BLOCKED = "_nchwc"
"""Convolutions in the runtime's blocked layout are named after the tensor that they make."""

_MOVED = "_pre_q"
"""What is behind the name of a tensor before which the runtime has moved a quantization."""

_LAYOUT = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})
_HELPERS = _LAYOUT | {"Cast", "DequantizeLinear", "QuantizeLinear"}
_WRITES_INTEGERS = re.compile(r"QLinear\w+|QGemm|NhwcMaxPool")

_FAMILIES = (
    re.compile(r"Conv"),
    re.compile(r"MatMul|Gemm|Attention|MoE"),
    re.compile(r"Pool"),
    re.compile(r"LSTM|GRU|RNN"),
)
"""What the types of kernels contain that can do an op's work, if the op's type contains it.

The runtime never merges two such ops, unless into one of :data:`_WHOLE_LAYERS`.
"""

_WHOLE_LAYERS = re.compile(r"Attention|MoE")

_ABSORBED = frozenset(
    {
        *("Add", "BatchNormalization", "Clip", "Mul", "QuantizeLinear", "Relu"),
        *("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze"),
        *("Transpose", "Unsqueeze"),
    }
)
"""Types of the nodes whose work an integer kernel before them can do.

Only where everything else that they read is constant.
"""


class Match:
    """Which nodes of the optimized graph do the work of which nodes of the model."""

    def __init__(self, source: onnx.GraphProto, optimized: onnx.GraphProto) -> None:
        self.source = source.node
        self._producer = {name: i for i, node in enumerate(source.node) for name in node.output}
        self._producer.pop("", None)
        self._readers: dict[str, list[int]] = {}
        for i, node in enumerate(source.node):
            for name in dict.fromkeys(node.input):
                if name:
                    self._readers.setdefault(name, []).append(i)
        self._constants = {tensor.name for tensor in source.initializer}
        self._folded = {tensor.name for tensor in optimized.initializer}
        # The node of the optimized graph that makes a tensor of the model.
        self._maker: dict[str, onnx.NodeProto] = {}
        self._namesakes: dict[int, list[onnx.NodeProto]] = {}
        self._claim(optimized.node)

    def hosts(self, node: int) -> list[onnx.NodeProto]:
        """The nodes of the optimized graph that do the work of a node."""
        if node in self._namesakes:
            return self._namesakes[node]
        family = _family(self.source[node])
        found: list[onnx.NodeProto] = []
        # With each node: whether there is another op of a family on the way to it.
        waiting, seen = [(node, False)], {(node, False)}
        while waiting:
            i, crossed = waiting.pop(0)
            hosts = self._namesakes.get(i, [])
            readers: list[int] = []
            for name in () if hosts else self.source[i].output:
                if name in self._maker:
                    hosts = [*hosts, self._maker[name]]
                elif name not in self._folded:
                    readers += self._readers.get(name, ())
            found += [host for host in hosts if _can_host(host, family, crossed)]
            for reader in readers:
                other = family is not None and _family(self.source[reader]) is not None
                if (step := (reader, crossed or other)) not in seen:
                    seen.add(step)
                    waiting.append(step)
        return list({id(host): host for host in found}.values())

    def is_constant(self, node: int) -> bool:
        """Whether a node computes the same for all inputs."""
        waiting, seen = [node], {node}
        while waiting:
            for name in self.source[waiting.pop()].input:
                producer = self._producer.get(name)
                if producer is None and name and name not in self._constants:
                    return False
                if producer is not None and producer not in seen:
                    seen.add(producer)
                    waiting.append(producer)
        return True

    def _claim(self, optimized: Iterable[onnx.NodeProto]) -> None:
        by_name = {node.name: i for i, node in enumerate(self.source) if node.name}
        nodes = list(optimized)
        writer = {name: host for host in nodes for name in host.output}
        for host in nodes:
            for name in host.output:
                if name in self._producer:
                    self._maker[name] = self._behind_layout(host, writer, by_name)
        exact = {host.name for host in nodes}
        for host in nodes:
            # A name that a node still has does not say where another one comes from.
            names = [n for n in inherited_names(host.name) if n == host.name or n not in exact]
            name = next((name for name in names if name in by_name), None)
            if name is not None and _is_namesake(host, self.source[by_name[name]]):
                self._namesakes.setdefault(by_name[name], []).append(host)
            elif host.name.endswith(_BLOCKED):
                tensor = host.name.removesuffix(_BLOCKED).removesuffix(_MOVED)
                if tensor not in self._producer and tensor in by_name:
                    # Where a Transpose was moved, what a node makes is called after the node.
                    tensor = self.source[by_name[tensor]].output[0]
                if tensor in self._producer:
                    self._maker.setdefault(tensor, host)
                    self._follow(host, tensor)
        for i, hosts in self._namesakes.items():
            if len(hosts) == 1 and not any(name in self._producer for name in hosts[0].output):
                self._follow(hosts[0], self.source[i].output[0])

    def _behind_layout(
        self,
        host: onnx.NodeProto,
        writer: Mapping[str, onnx.NodeProto],
        known: Container[str],
    ) -> onnx.NodeProto:
        """The node whose result a node of the runtime's own brings into another memory layout."""
        while host.op_type in _LAYOUT and host.name not in known:
            before = writer.get(host.input[0])
            if before is None or host.input[0] in self._producer:
                break
            host = before
        return host

    def _follow(self, host: onnx.NodeProto, tensor: str) -> None:
        """Claim what a kernel in another memory layout makes of a tensor.

        The tensors that it writes have no names that the model knows: its activation function, the
        sum behind a blocked convolution, and the quantization of its result are its work.
        """
        writes_integers = _WRITES_INTEGERS.fullmatch(host.op_type) is not None
        blocked = host.name.endswith(_BLOCKED)
        wanted = []
        if blocked and len(host.input) > 3 and host.input[3]:
            wanted.append("Add")
        activation = node_attributes(host).get("activation")
        if blocked and activation:
            wanted.append(activation.decode())
        while True:
            self._maker.setdefault(tensor, host)
            readers = self._readers.get(tensor, ())
            if len(readers) != 1 or readers[0] in self._namesakes:
                return
            reader = self.source[readers[0]]
            if reader.output[0] in self._maker:
                return
            if writes_integers:
                if not self._is_absorbed(reader, tensor):
                    return
            elif not wanted or reader.op_type != wanted.pop(0):
                return
            tensor = reader.output[0]
            if reader.op_type == "QuantizeLinear":
                self._maker.setdefault(tensor, host)
                return

    def _is_absorbed(self, reader: onnx.NodeProto, tensor: str) -> bool:
        """Whether the integer kernel that makes a tensor can do the work of its reader."""
        others = [name for name in reader.input if name and name != tensor]
        return reader.op_type in _ABSORBED and all(
            name in self._constants or self._is_computed_constant(name) for name in others
        )

    def _is_computed_constant(self, tensor: str) -> bool:
        return tensor in self._producer and self.is_constant(self._producer[tensor])


def plain_name(name: str) -> str:
    """A name without what the runtime adds to make it unique."""
    return re.sub(r"_token_\d+$", "", name)


def inherited_names(name: str) -> list[str]:
    """The names that a node may have had in the model, the likeliest first."""
    plain = plain_name(name)
    bare = re.sub(r"/\w*Fusion/?$", "", plain.removeprefix("fused "))
    return list(dict.fromkeys([name, plain, bare]))


def _is_namesake(host: onnx.NodeProto, source: onnx.NodeProto) -> bool:
    """Whether a node with the name of a node of the model does that node's work."""
    if host.op_type in _HELPERS and host.op_type != source.op_type:
        return False
    return _can_host(host, _family(source), False)


def _family(node: onnx.NodeProto) -> re.Pattern[str] | None:
    return next((family for family in _FAMILIES if family.search(node.op_type)), None)


def _can_host(host: onnx.NodeProto, family: re.Pattern[str] | None, crossed: bool) -> bool:
    """Whether a node can do the work of an op of a family, found with or without a crossing."""
    if crossed and not _WHOLE_LAYERS.search(host.op_type):
        return False
    return family is None or family.search(host.op_type) is not None
