"""To which op of a tuning space each node of an optimized graph belongs."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.executed.executed import OpFinder
from optuna_quant.backends.onnxruntime.executed.match import Match
from optuna_quant.backends.onnxruntime.executed.match import inherited_names


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours


OWN = "own"
BEFORE = "before"

_BEFORE_ITS_READER = frozenset({"QuantizeLinear", "ReorderInput", "DynamicQuantizeLinear"})
_HELPERS = _BEFORE_ITS_READER | {"Cast", "DequantizeLinear", "ReorderOutput", "Transpose"}


@dataclass(frozen=True)
class Share:
    """To what a node's time belongs.

    Args:
        op:
            The op; empty for what belongs to none.
        part:
            :data:`OWN` for the op's own kernel and what follows it, :data:`BEFORE` for what
            prepares its inputs.
        share:
            Which part of the node's time.
    """

    op: str
    part: str
    share: float = 1.0


def attribute(
    source: onnx.GraphProto,
    optimized: onnx.GraphProto,
    outputs: Mapping[str, str],
    neighbours: Neighbours,
) -> dict[str, list[Share]]:
    """Attribute each node of an optimized graph.

    A node that does the work of ops is theirs. A node of the model that is no op of the space
    belongs to the nearest op before it, whether it is fused with that or not. What the runtime has
    inserted (quantization, another memory layout) belongs to the op behind it where it prepares an
    input, and otherwise to the op before it.

    Args:
        source:
            The graph that the runtime was given.
        optimized:
            What it made of it.
        outputs:
            The output tensor of each op in the original model.
        neighbours:
            The neighbours of the ops.

    Returns:
        The shares of each node, by the node's name.
    """
    hosts = _hosts(source, optimized, outputs)
    writer = {name: node for node in optimized.node for name in node.output if name}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in optimized.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    known: dict[str, list[Share]] = {}
    for node in optimized.node:
        if node.name in hosts:
            ops = hosts[node.name]
            known[node.name] = [Share(op, OWN, 1.0 / len(ops)) for op in ops]
        elif (found := _anchor(node, neighbours)) is not None:
            known[node.name] = [Share(found, OWN)]

    def nearest(node: onnx.NodeProto, *, back: bool) -> str | None:
        waiting, seen = [node], {node.name}
        while waiting:
            level = waiting
            waiting = []
            found: list[str] = []
            for each in level:
                around = (
                    [writer[name] for name in each.input if name in writer]
                    if back
                    else [n for name in each.output if name for n in readers.get(name, ())]
                )
                for other in around:
                    if other.name in seen:
                        continue
                    seen.add(other.name)
                    if other.name in known:
                        found += [share.op for share in known[other.name]]
                    else:
                        waiting.append(other)
            if found:
                return max(found, key=lambda op: neighbours.position.get(op, -1))
        return None

    result: dict[str, list[Share]] = {}
    for node in optimized.node:
        if node.name in known:
            result[node.name] = known[node.name]
            continue
        ahead = node.op_type in _BEFORE_ITS_READER or (
            node.op_type == "Transpose" and _feeds(node, readers, hosts)
        )
        op = nearest(node, back=not ahead)
        if op is None:
            ahead = not ahead
            op = nearest(node, back=not ahead)
        result[node.name] = [Share(op or "", BEFORE if ahead else OWN)]
    return result


def _hosts(
    source: onnx.GraphProto, optimized: onnx.GraphProto, outputs: Mapping[str, str]
) -> dict[str, list[str]]:
    """The ops of which each node does the work."""
    finder = OpFinder(source, list(outputs), outputs)
    match = Match(source, optimized)
    claims: dict[str, list[tuple[str, bool]]] = {}
    for op in outputs:
        i = finder.find(op)
        for host in () if i is None else match.hosts(i):
            own = match.source[i].op_type in host.op_type if i is not None else False
            claims.setdefault(host.name, []).append((op, own))
    found = {}
    for key, claimed in claims.items():
        # A Conv that also adds is the Conv's.
        owners = [op for op, own in claimed if own]
        found[key] = owners or [op for op, _ in claimed]
    return found


def _anchor(node: onnx.NodeProto, neighbours: Neighbours) -> str | None:
    for name in inherited_names(node.name):
        if name in neighbours.anchor:
            return neighbours.anchor[name]
    if node.op_type in _HELPERS:
        return None
    for tensor in node.output:
        if tensor in neighbours.makers:
            return neighbours.makers[tensor][0]
    return None


def _feeds(
    node: onnx.NodeProto,
    readers: Mapping[str, Sequence[onnx.NodeProto]],
    hosts: Mapping[str, Sequence[str]],
) -> bool:
    """Whether only ops read what a node makes."""
    found = [reader for name in node.output for reader in readers.get(name, ())]
    return bool(found) and all(reader.name in hosts for reader in found)
