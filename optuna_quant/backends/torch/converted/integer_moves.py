"""Operators that only move values, on integers where both sides are quantized alike."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.reference_ops import QUANTIZED


if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.fx import Node


_QUANTIZE: Any = QUANTIZED.quantize_per_tensor.default
_DEQUANTIZE: Any = QUANTIZED.dequantize_per_tensor.default
_PAD: Any = ATEN.constant_pad_nd.default
_PAD_VALUE = 2
_LARGEST: Any = ATEN.max_pool2d_with_indices.default
_MOVES = frozenset(
    {
        _LARGEST,
        _PAD,
        ATEN.view.default,
        ATEN.reshape.default,
        ATEN.permute.default,
        ATEN.transpose.int,
        ATEN.t.default,
        ATEN.squeeze.dim,
        ATEN.squeeze.dims,
        ATEN.unsqueeze.default,
        ATEN.clone.default,
        ATEN.select.int,
        ATEN.slice.Tensor,
        ATEN.expand.default,
        ATEN.cat.default,
        operator.getitem,
    }
)


def move_integers(graph: GraphModule) -> None:
    """Leave out dequantizers and quantizers around operators that only move values.

    Args:
        graph:
            A graph of decomposed operators, which is changed.
    """
    for node in list(graph.graph.nodes):
        if node.target is _QUANTIZE:
            _move(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _move(quantizer: Node) -> None:
    numbers = quantizer.args[1:]
    chain: list[Node] = []
    mover: Any = quantizer.args[0]
    while _moves(mover) and len(mover.users) == 1:
        chain.append(mover)
        first = mover.args[0]
        if isinstance(first, (list, tuple)):
            break
        mover = first
    if not chain and mover.target is _DEQUANTIZE and mover.args[1:] == numbers:
        quantizer.replace_all_uses_with(mover.args[0])
    if not chain or chain[-1].target is operator.getitem:
        return
    last: Any = chain[-1]
    sources = last.args[0] if isinstance(last.args[0], (list, tuple)) else [last.args[0]]
    if not all(each.target is _DEQUANTIZE and each.args[1:] == numbers for each in sources):
        return
    for mover in chain:
        if mover.target is _PAD:
            mover.args = (*mover.args[:2], numbers[1])  # The integer that stands for zero.
    # The kernel for the largest one of bytes is slow; floats hold them exactly.
    in_floats = any(each.target is _LARGEST for each in chain)
    for source in dict.fromkeys(sources):
        integers = source.args[0]
        if in_floats:
            integers = _cast(last, integers, torch.float32)
        last.replace_input_with(source, integers)
    result: Any = quantizer.args[0]
    if in_floats:
        result = _cast(quantizer, result, numbers[-1])
    quantizer.replace_all_uses_with(result)


def _moves(node: Node) -> bool:
    if node.target is _PAD and len(node.args) > _PAD_VALUE and node.args[_PAD_VALUE]:
        return False
    return node.target in _MOVES


def _cast(place: Node, tensor: Any, dtype: Any) -> Node:
    with place.graph.inserting_before(place):
        return place.graph.call_function(ATEN.to.dtype, (tensor, dtype))
