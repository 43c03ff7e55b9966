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
        ATEN.alias.default,
        ATEN.pad.default,
        ATEN.pixel_shuffle.default,
        ATEN.pixel_unshuffle.default,
        ATEN.select.int,
        ATEN.slice.Tensor,
        ATEN.expand.default,
        ATEN.cat.default,
    }
)


_RELUS = (ATEN.relu.default,)
_KERNELS = frozenset(
    {
        *(ATEN.conv1d.default, ATEN.conv1d.padding, ATEN.conv2d.default, ATEN.conv2d.padding),
        *(ATEN.conv3d.default, ATEN.conv3d.padding, ATEN.linear.default),
    }
)


def lift_quantizers(graph: Graph) -> None:
    """Quantize already above operators that only move values, where all readers quantize alike.

    The result is the same, number for number: what is quantized twice with the same parameters
    does not change again. Before that a ReLU behind such operators moves to the kernel that it
    can become a part of.

    Args:
        graph:
            The graph, which is changed; nothing in it may write in place.
    """
    for node in list(graph.nodes):
        if node.target in _RELUS and all(user.target is _QUANTIZE for user in node.users):
            _lift_relu(graph, node)
    for node in reversed(list(graph.nodes)):
        if node.target is _QUANTIZE:
            _lift(graph, node)


def _lift_relu(graph: Graph, relu: Node) -> None:
    mover: Any = relu.args[0]
    if not _moves(mover) or len(mover.users) != 1:
        return
    sources = _sources(mover)
    if not all(_ends_in_kernel(source) for source in sources):
        return
    for source in dict.fromkeys(sources):
        with graph.inserting_before(mover):
            above = graph.call_function(ATEN.relu.default, (source,))
        above.meta.update({key: each for key, each in source.meta.items() if key == "val"})
        mover.replace_input_with(source, above)
        _lift_relu(graph, above)
    relu.replace_all_uses_with(mover)
    graph.erase_node(relu)


def _ends_in_kernel(node: Node) -> bool:
    """Whether a kernel gives a tensor, perhaps through operators that only move values."""
    while _moves(node) and len(node.users) == 1 and len(_sources(node)) == 1:
        (node,) = _sources(node)
    return node.target in _KERNELS and len(node.users) == 1


def _moves(node: Node) -> bool:
    """Whether a node only moves values, and zeros in between."""
    if node.target is ATEN.pad.default:
        others = dict(enumerate(node.args))
        return others.get(2, "constant") == "constant" and not others.get(3) and not node.kwargs
    return node.target in MOVES


def _lift(graph: Graph, quantizer: Node) -> None:
    mover: Any = quantizer.args[0]
    numbers = quantizer.args[1:]
    if not _moves(mover) or not all(
        user.target is _QUANTIZE and user.args[1:] == numbers for user in mover.users
    ):
        return
    sources = _sources(mover)
    if not any(_is_computed(source) for source in sources):
        return
    # A concatenation may take integers as well, which quantizers do not.
    if not all(_is_float(source) for source in sources):
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
    return source.op == "call_function" and _is_float(source)


def _is_float(source: Node) -> bool:
    value = source.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.dtype == torch.float32
