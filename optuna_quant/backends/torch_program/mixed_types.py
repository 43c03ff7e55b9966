"""Refuse a program that computes with tensors of types that PyTorch does not mix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch.export import ExportedProgram


_ATEN = torch.ops.aten
# Convolutions say so themselves.
_PRODUCTS = (_ATEN.linear.default, _ATEN.matmul.default, _ATEN.mm.default, _ATEN.addmm.default)


def check_types(program: ExportedProgram, name: str) -> None:
    """Refuse what PyTorch does only when it runs, as the exporter follows it without a word.

    Args:
        program:
            The program.
        name:
            What it is called in messages, as in "the module Net".

    Raises:
        ValueError:
            If a layer gets floats of another type than that of its weight.
    """
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target not in _PRODUCTS:
            continue
        values = [each.meta.get("val") for each in node.all_input_nodes]
        types = [each.dtype for each in values if isinstance(each, torch.Tensor)]
        if len(set(types)) > 1:
            paths = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
            where = next((f"in {path!r}" for path in reversed(paths) if path), "in its forward")
            given = " and ".join(dict.fromkeys(str(each).removeprefix("torch.") for each in types))
            raise ValueError(
                f"T{name[1:]} cannot be run on these example_inputs: {where} it multiplies "
                f"tensors of {given}. Weights are of float32, so give example_inputs of floats "
                "as x.float()."
            )
