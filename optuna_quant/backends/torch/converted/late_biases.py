"""Biases that a program adds after a layer, made biases of the layer's kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.graph.constant_view import ConstantView
from optuna_quant.backends.torch.graph.constant_view import constant_view


if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.fx import Node


_BIAS = 2
"""The position of the bias among the arguments of all layers."""

_CHANNELS_FIRST = frozenset(
    {
        *(ATEN.conv1d.default, ATEN.conv1d.padding, ATEN.conv2d.default, ATEN.conv2d.padding),
        *(ATEN.conv3d.default, ATEN.conv3d.padding),
    }
)


def take_in_biases(graph: GraphModule) -> None:
    """Make what is added to each channel of a layer without a bias its bias.

    Keras adds biases so, with the channels last. The kernel then adds it, and can give integers.

    Args:
        graph:
            The program in reference form, which is changed.
    """
    for node in list(graph.graph.nodes):
        is_conv = node.target in _CHANNELS_FIRST
        if is_conv and not _is_unbatched(node):
            _take_in(graph, node, 1)
        elif node.target is ATEN.linear.default:
            _take_in(graph, node, -1)
    graph.graph.lint()
    graph.recompile()


def _is_unbatched(conv: Node) -> bool:
    """Whether a convolution has a single sample, so that its first axis is that of channels."""
    weight: Any = conv.args[1]
    ndims = [getattr(each.meta.get("val"), "ndim", None) for each in (conv, weight)]
    return ndims[0] != ndims[1]


def _take_in(graph: GraphModule, layer: Node, axis: int) -> None:
    value = layer.meta.get("val")
    has_bias = len(layer.args) > _BIAS and layer.args[_BIAS] is not None
    if has_bias or not isinstance(value, torch.Tensor) or len(layer.users) != 1:
        return
    channels, axis = value.shape[axis], axis % value.ndim
    given = layer
    (reader,) = given.users
    while reader.target in (ATEN.permute.default, ATEN.alias.default):
        if reader.target is ATEN.permute.default:
            order: Any = reader.args[1]
            axis = [place % value.ndim for place in order].index(axis)
        if len(reader.users) != 1:
            return
        given = reader
        (reader,) = given.users
    if reader.target is not ATEN.add.Tensor or reader.args[0] is not given or reader.kwargs:
        return
    added: Any = reader.args[1]
    view = constant_view(added)
    if view is None or not _is_for_each(graph, view, channels, axis - value.ndim):
        return
    # What is added may have more axes, and so give the sum more.
    if getattr(reader.meta.get("val"), "ndim", None) != value.ndim:
        return
    args = [*layer.args, *[None] * (_BIAS + 1 - len(layer.args))]
    with graph.graph.inserting_before(layer):
        args[_BIAS] = graph.graph.get_attr(view.path)
    layer.args = tuple(args)
    reader.replace_all_uses_with(given)
    graph.graph.erase_node(reader)
    for node in (added, *_before(added)):
        if not node.users:
            graph.graph.erase_node(node)


def _before(node: Node) -> list[Node]:
    found: list[Node] = []
    while node.all_input_nodes:
        (node,) = node.all_input_nodes
        found.append(node)
    return found


def _is_for_each(graph: GraphModule, view: ConstantView, channels: int, axis: int) -> bool:
    """Whether a parameter has one number for each channel, which lie on this axis from behind."""
    owner, _, name = view.path.rpartition(".")
    tensor = getattr(graph.get_submodule(owner), name, None)
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != (channels,):
        return False
    if tensor.dtype != torch.float32:
        return False
    shape = view.of(tensor).shape
    return len(shape) >= -axis and shape[axis] == channels
