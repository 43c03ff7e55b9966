"""Quantizers above operators that only move values, so that the kernel before gives integers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.reference_ops import QUANTIZED


if TYPE_CHECKING:
    from torch.fx import Graph
    from torch.fx import Node


_QUANTIZE: Any = QUANTIZED.quantize_per_tensor.default
_DEQUANTIZE: Any = QUANTIZED.dequantize_per_tensor.default

# Rounding goes up where its argument does, so it may come before or after taking a maximum.
MOVES = frozenset(
    {
        ATEN.max_pool1d.default,
        ATEN.max_pool2d.default,
        ATEN.max_pool3d.default,
        ATEN.view.default,
        ATEN.reshape.default,
        ATEN.flatten.using_ints,
        ATEN.unflatten.int,
        ATEN.permute.default,
        ATEN.transpose.int,
        ATEN.t.default,
        ATEN.squeeze.dim,
        ATEN.squeeze.dims,
        ATEN.squeeze.default,
        ATEN.unsqueeze.default,
        ATEN.contiguous.default,
        ATEN.clone.default,
        ATEN.select.int,
        ATEN.slice.Tensor,
        ATEN.expand.default,
        ATEN.cat.default,
    }
)


def lift_quantizers(graph: Graph) -> None:
    """Quantize already above operators that only move values, where all readers quantize alike.

    The result is the same, number for number: what is quantized twice with the same parameters
    does not change again.

    Args:
        graph:
            The graph, which is changed; nothing in it may write in place.
    """
    for node in reversed(list(graph.nodes)):
        if node.target is _QUANTIZE:
            _lift(graph, node)


def _lift(graph: Graph, quantizer: Node) -> None:
    mover: Any = quantizer.args[0]
    numbers = quantizer.args[1:]
    if mover.target not in MOVES or not all(
        user.target is _QUANTIZE and user.args[1:] == numbers for user in mover.users
    ):
        return
    sources = _sources(mover)
    if not any(_is_computed(source) for source in sources):
        return
    for source in dict.fromkeys(sources):
        if source.target is _DEQUANTIZE and source.args[1:] == numbers:
            continue
        above = next(
            (u for u in source.users if u.target is _QUANTIZE and u.args[1:] == numbers), None
        )
        if above is None:
            with graph.inserting_after(source):
                above = graph.call_function(_QUANTIZE, (source, *numbers))
        with graph.inserting_before(mover):
            floats = graph.call_function(_DEQUANTIZE, (above, *numbers))
        # A quantizer that other ops share may stand further down.
        _move_up(above, source)
        mover.replace_input_with(source, floats)
        _lift(graph, above)


def _move_up(quantizer: Node, source: Node) -> None:
    source.append(quantizer)


def _sources(mover: Node) -> list[Node]:
    first: Any = mover.args[0]
    return list(first) if isinstance(first, (list, tuple)) else [first]


def _is_computed(source: Node) -> bool:
    """Whether a kernel or another operator that moves values gives a tensor of floats."""
    value = source.meta.get("val")
    is_float = not isinstance(value, torch.Tensor) or value.dtype == torch.float32
    return source.op == "call_function" and is_float
