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
    kernels = {8: _int8, 4: _int4}
    for op in ops:
        if op.mode != "weight_only" or op.shape is None or op.bits is None:
            continue
        bits = packed_bits(
            *(op.op_type, op.shape, op.bits, op.group_size),
            has_zero_points="zero_points" in op.tensors,
        )
        if bits is not None:
            _pack(graph, op, kernels[bits])
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()


_INPUTS = 16
"""What the kernel for 8 bits reads at once: of any other number it reads beyond the weight."""


def packed_bits(
    op_type: str,
    shape: tuple[int, ...],
    bits: int,
    group_size: int | None,
    *,
    has_zero_points: bool,
) -> int | None:
    """The bits of the kernel that takes a weight as it is kept, on this processor.

    Args:
        op_type:
            What the op is called.
        shape:
            The shape of its weight.
        bits:
            Bits of its codes.
        group_size:
            Inputs of a group; :obj:`None` for all.
        has_zero_points:
            Whether groups have a zero point of their own.

    Returns:
        8 or 4; :obj:`None` if there is no such kernel, so that it becomes floats at each run.
    """
    if op_type != "Linear":
        return None
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    outputs, inputs = shape
    size = inputs if group_size is None else group_size
    if bits == 8 and size >= inputs and not has_zero_points and inputs % _INPUTS == 0:
        return 8
    fits = size in _GROUP_SIZES and inputs % size == 0 and outputs % _OUTPUTS == 0
    return 4 if bits == 4 and fits else None


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
