"""A program in the operators that passes look for, by one run on tensors without data."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator
from torch._subclasses import FakeTensorMode
from torch.export.graph_signature import InputKind
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from optuna_quant.backends.torch.converted.exporting import export_graph
from optuna_quant.backends.torch.graph.ops import writes_in_place


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram
    from torch.fx import Graph
    from torch.fx import GraphModule
    from torch.fx import Node


def decomposed(graph: GraphModule, like: ExportedProgram) -> GraphModule:
    """Take composite operators apart, such as a Linear layer on more than two axes.

    Tensors keep their paths, nodes what op they come from, and inputs are checked as before.

    Args:
        graph:
            The program, which is changed.
        like:
            The exported program that it was made from: it says what the inputs are.

    Returns:
        The program, each of whose nodes has its tensor without data in its ``meta["val"]``.
    """
    if not _is_pure(graph.graph):
        return _functional(graph, like)
    paths = list(dict.fromkeys(str(n.target) for n in graph.graph.nodes if n.op == "get_attr"))
    found = _recorded(graph, paths, _inputs_without_data(like))
    if not _is_pure(found.graph):
        # What an operator consists of may write into what it has made itself.
        return _functional(graph, like)
    _read_constants(found, graph)
    _read_tensors(found.graph, paths)
    found.graph.set_codegen(graph.graph._codegen)
    graph.graph = found.graph
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _is_pure(graph: Graph) -> bool:
    """Whether a program writes into no tensor and runs no graph inside of it."""
    return not any(
        writes_in_place(node) or isinstance(node.target, HigherOrderOperator)
        for node in graph.nodes
    )


def _recorded(graph: GraphModule, paths: Sequence[str], inputs: Sequence[Any]) -> GraphModule:
    """What a program runs, with the tensors of these paths as its first inputs."""
    mode = detect_fake_mode(inputs) or FakeTensorMode()
    state = [mode.from_tensor(_tensor(graph, path), static_shapes=True) for path in paths]

    def run(*given: Any) -> Any:
        return _WithState(graph, dict(zip(paths, given, strict=False))).run(*given[len(paths) :])

    with torch.no_grad(), preserve_node_meta(), mode, enable_python_dispatcher():
        found = make_fx(run)(*state, *inputs)
    for node, given in zip(_placeholders(found.graph), [*state, *inputs], strict=True):
        node.meta.setdefault("val", given)  # Constants have none.
    return found


class _WithState(torch.fx.Interpreter):
    """Runs a program with other tensors in the place of its own."""

    def __init__(self, graph: GraphModule, state: dict[str, Any]) -> None:
        super().__init__(graph)
        self._state = state

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._state[str(target)]


def _inputs_without_data(program: ExportedProgram) -> list[Any]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return [
        spec.arg.value if hasattr(spec.arg, "value") else values[spec.arg.name]
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]


def _placeholders(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _tensor(graph: GraphModule, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    found: torch.Tensor = getattr(graph.get_submodule(owner), name)
    return found


def _read_constants(found: GraphModule, graph: GraphModule) -> None:
    """Give a program the tensors that the run has made, under names of their own."""
    names: dict[str, str] = {}
    for node in found.graph.nodes:
        if node.op == "get_attr":
            target = str(node.target)
            if target not in names:
                names[target] = _new_name(graph)
                graph.register_buffer(names[target], _tensor(found, target), persistent=False)
            node.target = names[target]


def _new_name(graph: GraphModule) -> str:
    return next(name for i in count() if not hasattr(graph, name := f"_constant{i}"))


def _read_tensors(found: Graph, paths: Sequence[str]) -> None:
    """Read tensors at their paths, instead of getting them as the first inputs."""
    for path, node in zip(paths, _placeholders(found), strict=False):
        with found.inserting_before(node):
            read = found.create_node("get_attr", path)
        read.meta = dict(node.meta)
        node.replace_all_uses_with(read)
        found.erase_node(node)


def _functional(graph: GraphModule, like: ExportedProgram) -> GraphModule:
    """The same by two exports, which replace operators that write into tensors."""
    program = export_graph(graph, like)
    table = torch.export.default_decompositions()
    for operator in list(table):
        if not torch._export.utils._is_cia_op(operator):
            del table[operator]
    found: Any = program.run_decompositions(table).module(check_guards=False)
    return found  # type: ignore[no-any-return]
