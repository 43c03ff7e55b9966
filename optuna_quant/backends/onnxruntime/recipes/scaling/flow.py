"""How a factor per channel of a tensor goes through operators without a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.static.ops import clip_bounds


if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph


@dataclass(frozen=True)
class Channels:
    """Where the channels of a tensor are.

    Args:
        axis:
            The axis, from the end: -1 is the last.
        repeat:
            How many neighbours on it belong to one channel.
    """

    axis: int
    repeat: int = 1


@dataclass(frozen=True)
class Step:
    """What a node makes of the factors of a tensor.

    Args:
        linked:
            The tensors that are scaled with it, with the places of their channels.
        constants:
            The positions of the node's constants that are divided with it, and whether one is
            multiplied instead.
    """

    linked: tuple[tuple[str, Channels], ...] = ()
    constants: tuple[tuple[int, bool], ...] = ()


_ELEMENTWISE = frozenset({"Abs", "Dropout", "Identity", "LeakyRelu", "Relu"})
"""Operators ``f`` of one tensor with ``f(x / s) = f(x) / s`` for every ``s > 0``."""

_SPATIAL = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
"""The same, with channels on axis 1, of which they leave each by itself."""

_IGNORED = frozenset({"Shape", "Size"})
"""Operators that do not look at values."""


class Flow:
    """Follows factors through the nodes of a graph.

    Args:
        graph:
            The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def through(
        self, node: onnx.NodeProto, position: int | None, tensor: str, place: Channels
    ) -> Step | None:
        """What a node makes of the factors of a tensor.

        Args:
            node:
                The node.
            position:
                At which of its inputs it reads the tensor; None if it gives it.
            tensor:
                The tensor.
            place:
                The place of its channels.

        Returns:
            The step; None if the tensor cannot be scaled because of the node.
        """
        if node.domain not in ("", "ai.onnx"):
            return None
        if position is not None and node.op_type in _IGNORED:
            return Step()
        if len([name for name in node.output if name]) != 1:
            return None
        if node.op_type in _ELEMENTWISE or self._is_homogeneous(node, place):
            return self._passed(node, position, place) if position in (None, 0) else None
        rule = _RULES.get(node.op_type)
        return None if rule is None else rule(self, node, position, place)

    def _is_homogeneous(self, node: onnx.NodeProto, place: Channels) -> bool:
        if node.op_type in _SPATIAL:
            rank = self._rank(node.input[0])
            return place.repeat == 1 and rank is not None and place.axis == 1 - rank
        if node.op_type == "Clip":
            # A bound above zero would have to be scaled with the channel, which no Clip can do.
            bounds = clip_bounds(node, self._graph)
            return bounds is not None and bounds[0] in (None, 0.0) and bounds[1] in (None, 0.0)
        if node.op_type == "PRelu":
            return self._graph.is_constant(node.input[1])
        return node.op_type == "Pad" and self._pads_zeros(node, place)

    @staticmethod
    def _passed(node: onnx.NodeProto, position: int | None, place: Channels) -> Step:
        other = node.input[0] if position is None else node.output[0]
        return Step(((other, place),))

    def _add(self, node: onnx.NodeProto, position: int | None, place: Channels) -> Step | None:
        """A sum: all that is added is scaled, and so is the sum."""
        constants = [j for j, name in enumerate(node.input) if self._graph.is_constant(name)]
        if not all(self._fits(node.input[j], place) for j in constants):
            return None
        others = [j for j in range(len(node.input)) if j not in constants]
        names = [node.output[0], *(node.input[j] for j in others)]
        if len(others) > 1 and not self._same_shape(names):
            return None
        here = node.output[0] if position is None else node.input[position]
        linked = tuple((name, place) for name in names if name != here)
        return Step(linked, tuple((j, False) for j in constants))

    def _sub(self, node: onnx.NodeProto, position: int | None, place: Channels) -> Step | None:
        return self._add(node, position, place)

    def _mul(self, node: onnx.NodeProto, position: int | None, place: Channels) -> Step | None:
        """A product with a constant, which gives a scaled tensor if the constant is scaled."""
        constants = [j for j, name in enumerate(node.input) if self._graph.is_constant(name)]
        if len(constants) != 1 or not self._fits(node.input[constants[0]], place):
            return None
        if position is None:
            # One number for all channels is often part of a function that the runtime knows.
            single = int(np.prod(self._graph.initializers[node.input[constants[0]]].dims)) == 1
            return None if single else Step((), ((constants[0], False),))
        return Step(((node.output[0], place),))

    def _div(self, node: onnx.NodeProto, position: int | None, place: Channels) -> Step | None:
        if not self._graph.is_constant(node.input[1]) or not self._fits(node.input[1], place):
            return None
        if position is None:
            return Step((), ((1, True),))
        return Step(((node.output[0], place),))

    def _normalization(
        self, node: onnx.NodeProto, position: int | None, place: Channels
    ) -> Step | None:
        """A normalization gives a scaled tensor if its own scale and bias are scaled."""
        rank = self._rank(node.output[0])
        if node.op_type == "LayerNormalization":
            axis = int(node_attributes(node).get("axis", -1))
            last = axis == -1 or (rank is not None and axis == rank - 1)
            fits = last and place.axis == -1
        else:
            fits = rank is not None and place.axis == 1 - rank and place.repeat == 1
        positions = [j for j in (1, 2) if j < len(node.input) and node.input[j]]
        if position is not None or not fits or not positions:
            return None
        if not all(self._graph.is_weight(node.input[j]) for j in positions):
            return None
        return Step((), tuple((j, False) for j in positions))

    def _transpose(
        self, node: onnx.NodeProto, position: int | None, place: Channels
    ) -> Step | None:
        perm = node_attributes(node).get("perm")
        if perm is None:
            return None
        rank = len(perm)
        if position is None:
            return Step(((node.input[0], Channels(perm[rank + place.axis] - rank, place.repeat)),))
        axis = list(perm).index(rank + place.axis) - rank
        return Step(((node.output[0], Channels(axis, place.repeat)),))

    def _flatten(self, node: onnx.NodeProto, position: int | None, place: Channels) -> Step | None:
        """Channels whose positions become neighbours on one axis; or no change of the axes."""
        before = self._graph.shapes.get(node.input[0])
        after = self._graph.shapes.get(node.output[0])
        if before is None or after is None:
            return None
        if node.op_type == "Flatten" and node_attributes(node).get("axis", 1) != 1:
            return None
        here, other = (after, before) if position is None else (before, after)
        name = node.input[0] if position is None else node.output[0]
        inner = here[len(here) + place.axis :]
        if None in inner or place.axis < -len(here):
            return None
        size = int(np.prod([n for n in inner if n is not None]))
        if position is None:
            return self._unflattened(name, other, place, size)
        positions = size // (inner[0] or 1)
        channels = (inner[0] or 0) // place.repeat
        if len(other) == 2 and other[1] == size:
            # Each channel has its positions side by side.
            return Step(((name, Channels(-1, place.repeat * positions)),)) if channels else None
        return None

    @staticmethod
    def _unflattened(
        name: str, before: tuple[int | None, ...], place: Channels, size: int
    ) -> Step | None:
        if place.axis != -1 or len(before) < 2 or None in before[1:]:
            return None
        known = [n for n in before[1:] if n is not None]
        positions = int(np.prod(known[1:]))
        if positions * known[0] != size or place.repeat % positions:
            return None
        return Step(((name, Channels(1 - len(before), place.repeat // positions)),))

    def _mean(self, node: onnx.NodeProto, position: int | None, place: Channels) -> Step | None:
        """A mean over other axes than that of the channels."""
        attributes = node_attributes(node)
        rank, axes = self._rank(node.input[0]), attributes.get("axes")
        if axes is None and len(node.input) > 1 and self._graph.is_constant(node.input[1]):
            axes = self._graph.array(node.input[1]).tolist()
        if not axes or rank is None:
            return None
        gone = {axis % rank for axis in axes}
        kept = [axis for axis in range(rank) if axis not in gone]
        after = list(range(rank)) if attributes.get("keepdims", 1) else kept
        before = place.axis + (len(after) if position is None else rank)
        if position is None:
            before = after[before] if before >= 0 else -1
        if before not in kept:
            return None
        if position is None:
            return Step(((node.input[0], Channels(before - rank, place.repeat)),))
        axis = after.index(before) - len(after)
        return Step(((node.output[0], Channels(axis, place.repeat)),))

    # What is known of tensors.

    def _fits(self, name: str, place: Channels) -> bool:
        """Whether a constant can be given a value for each channel."""
        if not self._graph.is_weight(name):
            return False
        dims = self._graph.initializers[name].dims
        return place.repeat == 1 or -place.axis > len(dims) or dims[place.axis] != 1

    def _rank(self, name: str) -> int | None:
        shape = self._graph.shapes.get(name)
        return None if shape is None else len(shape)

    def _same_shape(self, names: list[str]) -> bool:
        """Whether nothing is broadcast along known axes."""
        shapes = [self._graph.shapes.get(name) for name in names]
        if any(shape is None for shape in shapes):
            return False
        return len({shape[1:] for shape in shapes if shape is not None}) == 1

    def _pads_zeros(self, node: onnx.NodeProto, place: Channels) -> bool:
        """Whether a Pad adds nothing but zeros, or what is there, and none to the channels."""
        attributes = node_attributes(node)
        pads = attributes.get("pads")
        if pads is None and len(node.input) > 1 and self._graph.is_constant(node.input[1]):
            pads = self._graph.array(node.input[1]).tolist()
        if pads is None or (len(node.input) > 3 and node.input[3]):
            return False
        if attributes.get("mode", b"constant") == b"constant":
            value = attributes.get("value", 0.0)
            if len(node.input) > 2 and node.input[2]:
                if not self._graph.is_constant(node.input[2]):
                    return False
                value = float(self._graph.array(node.input[2]).reshape(()))
            if value:
                return False
        rank = len(pads) // 2
        axis = rank + place.axis
        return axis >= 0 and not pads[axis] and not pads[rank + axis]


_RULES: dict[str, Callable[[Flow, onnx.NodeProto, int | None, Channels], Step | None]] = {
    "Add": Flow._add,
    "BatchNormalization": Flow._normalization,
    "Div": Flow._div,
    "Flatten": Flow._flatten,
    "InstanceNormalization": Flow._normalization,
    "LayerNormalization": Flow._normalization,
    "Mul": Flow._mul,
    "ReduceMean": Flow._mean,
    "Reshape": Flow._flatten,
    "Sub": Flow._sub,
    "Transpose": Flow._transpose,
}
