"""Weights of 8 and 4 bits in the form of PyTorch's kernels for them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.weight_nodes import unpacked


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import Graph
    from torch.fx import GraphModule
    from torch.fx import Node

    from optuna_quant.backends.torch.converted.writing import WrittenOp


_GROUP_SIZES = (32, 64, 128, 256)
_OUTPUTS = 16
"""The kernel for 4 bits computes so many outputs at once."""


def pack_weights(graph: GraphModule, ops: Sequence[WrittenOp]) -> None:
    """Give Linear layers with weights of 8 and 4 bits the kernels that PyTorch has for them.

    The kernels take activations in bfloat16: those for float32 are many times slower than
    computing in floats. Where there is no kernel, nothing changes.

    Args:
        graph:
            The program in reference form, which is changed.
        ops:
            What became of the ops.
    """
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return
    for op in ops:
        if op.mode != "weight_only" or op.op_type != "Linear":
            continue
        if _is_for_int8(op):
            _pack(graph, op, _int8)
        elif _is_for_int4(op):
            _pack(graph, op, _int4)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()


_INPUTS = 16
"""What the kernel for 8 bits reads at once: of any other number it reads beyond the weight."""


def _is_for_int8(op: WrittenOp) -> bool:
    assert op.shape is not None
    inputs = op.shape[1]
    one_group = op.group_size is not None and op.group_size >= inputs
    is_plain = op.bits == 8 and one_group and "zero_points" not in op.tensors
    return is_plain and inputs % _INPUTS == 0


def _is_for_int4(op: WrittenOp) -> bool:
    assert op.shape is not None
    outputs, inputs = op.shape
    return (
        op.bits == 4
        and op.group_size in _GROUP_SIZES
        and inputs % op.group_size == 0
        and outputs % _OUTPUTS == 0
    )


def _pack(graph: GraphModule, op: WrittenOp, kernel: Any) -> None:
    reader = next(
        (n for n in graph.graph.nodes if n.target == op.tensors["codes"] and n.users), None
    )
    linears = [] if reader is None else _linears(reader)
    for linear in linears:
        source: Any = linear.args[0]
        value = linear.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.ndim < 2:
            continue
        with graph.graph.inserting_before(linear):
            flat = source
            if value.ndim > 2:
                flat = graph.graph.call_function(ATEN.flatten.using_ints, (source, 0, -2))
            halves = graph.graph.call_function(ATEN.to.dtype, (flat, torch.bfloat16))
            product = kernel(graph, op, halves)
            product.meta["custom"] = dict(linear.meta.get("custom", {}))
            found = graph.graph.call_function(ATEN.to.dtype, (product, torch.float32))
            if kernel is _int8:
                found = _scaled(graph, op, found)
            if len(linear.args) > 2 and linear.args[2] is not None:
                found = graph.graph.call_function(ATEN.add.Tensor, (found, linear.args[2]))
            if value.ndim > 2:
                found = _shaped(graph.graph, found, source, value.ndim)
        found.meta = dict(linear.meta)
        linear.replace_all_uses_with(found)
        graph.graph.erase_node(linear)


def _linears(reader: Node) -> list[Node]:
    """The Linear layers that compute with the floats of these codes."""
    seen: set[Node] = set()
    waiting, found = [reader], []
    while waiting:
        for user in waiting.pop().users:
            if user.target is ATEN.linear.default:
                found.append(user)
            elif user not in seen and user.target is not ATEN.embedding.default:
                seen.add(user)
                waiting.append(user)
    return [linear for linear in dict.fromkeys(found) if linear.args[1] in seen]


def _shaped(graph: Graph, flat: Node, source: Node, axes: int) -> Node:
    sizes: list[Any] = [
        graph.call_function(ATEN.sym_size.int, (source, axis)) for axis in range(axes - 1)
    ]
    return graph.call_function(ATEN.view.default, (flat, [*sizes, -1]))


def _int8(graph: GraphModule, op: WrittenOp, halves: Node) -> Node:
    call = graph.graph.call_function
    assert op.shape is not None
    codes = _tensor(graph, op.tensors["codes"])
    weight = (codes[:, : op.shape[1]].to(torch.int16) - 128).to(torch.int8).contiguous()
    # Scales of bfloat16 would be as coarse as the codes.
    ones = torch.ones(len(weight), dtype=torch.bfloat16)
    args = halves, _add(graph, op, "packed", weight), _add(graph, op, "packed_ones", ones)
    return call(ATEN._weight_int8pack_mm.default, args)


def _scaled(graph: GraphModule, op: WrittenOp, products: Node) -> Node:
    scales = _tensor(graph, op.tensors["scales"]).reshape(-1).contiguous()
    factors = _add(graph, op, "packed_scale", scales)
    return graph.graph.call_function(ATEN.mul.Tensor, (products, factors))


def _int4(graph: GraphModule, op: WrittenOp, halves: Node) -> Node:
    call = graph.graph.call_function
    assert op.shape is not None
    codes = unpacked(_tensor(graph, op.tensors["codes"]), 4, op.shape[1])
    scales = _tensor(graph, op.tensors["scales"])
    middle = torch.full_like(scales, 8.0)
    if "zero_points" in op.tensors:
        middle = _tensor(graph, op.tensors["zero_points"]).float()
    # The kernel's zero is what the code 8 stands for.
    pairs = torch.stack([scales, (8.0 - middle) * scales], -1).transpose(0, 1).contiguous()
    weight = ATEN._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32).contiguous(), 2)
    args = (
        halves,
        _add(graph, op, "packed", weight),
        op.group_size,
        _add(graph, op, "packed_scale", pairs.bfloat16()),
    )
    return call(ATEN._weight_int4pack_mm_for_cpu.default, args)


def _tensor(graph: GraphModule, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    found: torch.Tensor = getattr(graph.get_submodule(owner), name)
    return found


def _add(graph: GraphModule, op: WrittenOp, what: str, tensor: torch.Tensor) -> Node:
    owner, dot, name = op.tensors["codes"].rpartition(".")
    module = graph.get_submodule(owner)
    name = f"{name}_{what}"
    module.register_buffer(name, tensor)
    return graph.graph.get_attr(f"{owner}{dot}{name}")
