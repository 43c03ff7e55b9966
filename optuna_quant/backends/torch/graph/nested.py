"""Ops inside the graphs that a node runs, such as the branches of ``torch.cond``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.fx import GraphModule

from optuna_quant.backends.torch.graph.ops import form_of


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping

    from torch.fx import Node

    from optuna_quant.backends.torch.graph.switched import SwitchedProgram


@dataclass(frozen=True)
class NestedOp:
    """An op inside a graph that a node runs.

    Args:
        name:
            The path of its module, or the name of the node with the type of the op.
        op_type:
            What it is called.
        nbytes:
            Bytes of its parameters.
    """

    name: str
    op_type: str
    nbytes: int


def nested_ops(program: SwitchedProgram, node: Node) -> tuple[NestedOp, ...]:
    """The layers and products inside the graphs that a node runs, each once.

    Args:
        program:
            The program.
        node:
            A node of it.
    """
    found: dict[str, NestedOp] = {}
    for op in _nested(program, program.original, node, {}, node.name):
        found.setdefault(op.name, op)
    return tuple(found.values())


def _nested(
    program: SwitchedProgram,
    owner: torch.nn.Module,
    node: Node,
    outer: Mapping[Node, str],
    name: str,
) -> Iterator[NestedOp]:
    """The ops inside a node.

    Args:
        program:
            The program.
        owner:
            What the node's graph takes its attributes from.
        node:
            The node.
        outer:
            The parameters that placeholders of the node's graph stand for.
        name:
            The name of the node of the program.
    """
    found = [(each, _graph(owner, each)) for each in node.args]
    places = [place for place, (_, graph) in enumerate(found) if graph is not None]
    if not places:
        return
    operands: list[Node] = []
    torch.fx.node.map_arg(node.args[places[-1] + 1 :], operands.append)
    for place in places:
        graph = found[place][1]
        assert graph is not None
        inputs = [each for each in graph.graph.nodes if each.op == "placeholder"]
        pairs = zip(inputs, operands, strict=False)
        known = {own: _path(program, each, outer) for own, each in pairs}
        parameters = {own: path for own, path in known.items() if path is not None}
        for each in graph.graph.nodes:
            op = _op(program, each, parameters, name)
            if op is not None:
                yield op
            yield from _nested(program, graph, each, parameters, name)


def _graph(owner: torch.nn.Module, argument: object) -> GraphModule | None:
    if getattr(argument, "op", "") != "get_attr":
        return None
    found = getattr(owner, str(argument.target), None)  # type: ignore[attr-defined]
    return found if isinstance(found, GraphModule) else None


def _path(program: SwitchedProgram, node: Node, outer: Mapping[Node, str]) -> str | None:
    if node.op == "get_attr":
        return program.paths.get(str(node.target))
    return outer.get(node)


def _op(
    program: SwitchedProgram, node: Node, parameters: Mapping[Node, str], name: str
) -> NestedOp | None:
    form = form_of(node)
    if form is None or (form.weight is None and form.op_type != "MatMul"):
        return None
    own = [parameters[each] for each in node.all_input_nodes if each in parameters]
    owner, _, parameter = own[0].rpartition(".") if own else ("", "", "")
    nbytes = sum(program.values[path].nbytes for path in own if path in program.values)
    known = owner if parameter == "weight" and owner else f"{name}.{form.op_type}"
    return NestedOp(known, form.op_type, nbytes)
