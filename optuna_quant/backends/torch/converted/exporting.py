"""A written program as an exported one, with the dynamic axes of the original."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.export.graph_signature import InputKind

from optuna_quant.backends.torch_program.quiet import without_idle_output


if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule


ORIGIN = "quant_op"
"""The key of an op's name in the ``meta["custom"]`` of its node."""

_AUTO = torch.export.Dim.AUTO

_OF_THIS_PROCESS = ("from_node", "stack_trace", "torch_fn")
"""What nodes hold of places in code and in memory."""


def export_graph(graph: GraphModule, like: ExportedProgram) -> ExportedProgram:
    """Export a graph module.

    Args:
        graph:
            Takes the inputs of the program in their order.
        like:
            The program that it was made from: it says which axes have any size.
    """
    args, shapes = inputs_like(like)
    _keep_origins(graph)
    try:
        found = _exported(graph, args, shapes)
    except torch._dynamo.exc.UserError:
        # More than a range is asked of an axis, such as that it is a multiple of a number.
        free = (None if each is None else dict.fromkeys(each, _AUTO) for each in shapes)
        found = _exported(graph, args, tuple(free))
    _keep_origins(found.graph_module)
    return found


def _exported(
    graph: GraphModule, args: tuple[Any, ...], shapes: tuple[Any, ...]
) -> ExportedProgram:
    with torch.no_grad(), without_idle_output(), torch.fx.traceback.preserve_node_meta():
        return torch.export.export(graph, args, dynamic_shapes=shapes, strict=False)


def without_examples(program: ExportedProgram) -> ExportedProgram:
    """A program without the inputs that it was exported with."""
    program._example_inputs = None
    return program


def _keep_origins(graph: GraphModule) -> None:
    """Keep which op a node comes from, and drop what earlier exports have noted."""
    for node in graph.graph.nodes:
        for key in _OF_THIS_PROCESS:
            node.meta.pop(key, None)
        custom = node.meta.pop("custom", None) or {}
        if ORIGIN in custom:
            node.meta["custom"] = {ORIGIN: custom[ORIGIN]}


def inputs_like(program: ExportedProgram) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments that fit a program, and which of their axes have any size.

    Args:
        program:
            The program.

    Returns:
        The arguments in their order, tensors of zeros and constants; and the dynamic shapes, as
        :func:`torch.export.export` takes them.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    args: list[Any] = []
    shapes: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        value = values.get(spec.arg.name) if not hasattr(spec.arg, "value") else spec.arg.value
        if not isinstance(value, torch.Tensor):
            args.append(value)
            shapes.append(None)
            continue
        sizes = [size if isinstance(size, int) else _hint(size) for size in value.shape]
        args.append(torch.zeros(sizes, dtype=value.dtype))
        shapes.append(
            {
                axis: _dim(size, program)
                for axis, size in enumerate(value.shape)
                if not isinstance(size, int)
            }
        )
    return tuple(args), tuple(shapes)


def _hint(size: Any) -> int:
    # Sizes of zero and one are taken for constants.
    return max(2, int(size.node.hint or 2))


def _dim(size: Any, program: ExportedProgram) -> Any:
    symbol = size.node.expr
    bounds = program.range_constraints.get(symbol)
    if not symbol.is_Symbol or bounds is None:
        return _AUTO
    least = int(bounds.lower) if bounds.lower.is_Integer else 0
    most = int(bounds.upper) if bounds.upper.is_Integer else None
    return torch.export.Dim(f"axis_{symbol}", min=max(least, 0), max=most)
