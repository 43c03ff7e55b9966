"""Folding batch normalizations into the convolutions before them, in whatever form they come."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.channel_steps import ELEMENTWISE
from optuna_quant.backends.onnxruntime.model.channel_steps import ChannelStep
from optuna_quant.backends.onnxruntime.model.channel_steps import ChannelSteps
from optuna_quant.backends.onnxruntime.model.channel_steps import axes_behind
from optuna_quant.backends.onnxruntime.model.channel_steps import batch_norm_step
from optuna_quant.backends.onnxruntime.model.channel_steps import elementwise_step
from optuna_quant.backends.onnxruntime.model.graph import take_name


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph


@dataclass(frozen=True, eq=False)
class ChannelFolding:
    """What is left of a graph once such steps were folded.

    Args:
        nodes:
            The nodes that are left.
        values:
            The new initializers, by name.
    """

    nodes: Sequence[onnx.NodeProto]
    values: Mapping[str, onnx.TensorProto]


def fold_channel_steps(graph: Graph) -> ChannelFolding:
    """Let a Conv do what follows it with constants for each channel, if only that reads it.

    Args:
        graph:
            The graph, its nodes sorted. It is not changed.
    """
    folding = _Folding(graph)
    kept = [node for node in graph.nodes if not folding.folds(node)]
    return folding.result(kept)


@dataclass(frozen=True)
class _Found:
    """A node that is a step: the Conv that can do it, and what it is."""

    conv: onnx.NodeProto
    step: ChannelStep
    data: str
    constant: str


class _Folding:
    """What was found so far."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._steps: dict[str, ChannelSteps] = {}
        # By a folded node's output, the tensor that takes its name; and the names by tensor.
        self._origin: dict[str, str] = {}
        self._renamed: dict[str, str] = {}

    def folds(self, node: onnx.NodeProto) -> bool:
        """Whether a node is folded into the Conv before it."""
        found = self._found(node)
        if found is None:
            return False
        steps = self._steps.get(found.conv.name) or self._none_yet(found.conv)
        steps = steps.then(found.step, found.constant)
        weight = self._graph.array(found.conv.input[1])
        if not steps.are_finite(weight):
            return False
        self._steps[found.conv.name] = steps
        origin = self._origin.get(found.data, found.data)
        self._origin[node.output[0]] = origin
        self._renamed[origin] = node.output[0]
        return True

    def result(self, kept: Sequence[onnx.NodeProto]) -> ChannelFolding:
        """The nodes that are left, with what they compute now."""
        names = set(self._graph.names)
        values: dict[str, onnx.TensorProto] = {}
        nodes = []
        for node in kept:
            steps = self._steps.get(node.name)
            output = self._renamed.get(node.output[0]) if node.output else None
            if steps is not None or output is not None:
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                node = copy
            if output is not None:
                node.output[0] = output
            if steps is not None:
                self._apply(node, steps, values, names)
            nodes.append(node)
        return ChannelFolding(tuple(nodes), values)

    def _found(self, node: onnx.NodeProto) -> _Found | None:
        is_norm = node.op_type == "BatchNormalization"
        if node.domain or not (is_norm or node.op_type in ELEMENTWISE):
            return None
        data = [name for name in node.input if not self._is_constant(name)]
        constants = [name for name in node.input if self._is_constant(name)]
        if len(data) != 1 or not constants or (is_norm and node.input[0] != data[0]):
            return None
        before = self._conv_before(data[0])
        if before is None:
            return None
        conv, axes = before
        arrays = [self._graph.array(name).astype(np.float64) for name in constants]
        if is_norm:
            # It takes the second axis, which may be another one behind a Transpose.
            step = batch_norm_step(node, arrays) if axes[1:2] == (1,) else None
        else:
            step = elementwise_step(
                node,
                arrays[0],
                axes,
                self._graph.initializers[conv.input[1]].dims[0],
                constant_first=node.input[0] == constants[0],
            )
        return None if step is None else _Found(conv, step, data[0], constants[is_norm])

    def _conv_before(self, name: str) -> tuple[onnx.NodeProto, tuple[int, ...]] | None:
        """The Conv that a tensor comes from, its axes moved at most, and which these are.

        None if there is none, or something else reads what it gives.
        """
        graph = self._graph
        moves: list[onnx.NodeProto] = []
        while graph.only_reader(name) is not None:
            position = graph.producer.get(self._origin.get(name, name))
            if position is None:
                return None
            node = graph.nodes[position]
            if node.op_type == "Conv" and not node.domain:
                if not all(self._is_constant(each) for each in node.input[1:] if each):
                    return None
                axes = tuple(range(len(graph.initializers[node.input[1]].dims)))
                return self._moved(node, axes, moves[::-1])
            if node.op_type not in ("Transpose", "Squeeze"):
                return None
            moves.append(node)
            name = node.input[0]
        return None

    def _moved(
        self, conv: onnx.NodeProto, axes: tuple[int, ...], moves: Sequence[onnx.NodeProto]
    ) -> tuple[onnx.NodeProto, tuple[int, ...]] | None:
        for node in moves:
            squeezed = node.input[1] if len(node.input) > 1 else ""
            known = self._graph.array(squeezed) if self._graph.is_constant(squeezed) else None
            behind = axes_behind(node, axes, None if known is None else known.reshape(-1).tolist())
            if behind is None:
                return None
            axes = behind
        return conv, axes

    def _none_yet(self, conv: onnx.NodeProto) -> ChannelSteps:
        if len(conv.input) > 2 and conv.input[2]:
            bias = self._graph.array(conv.input[2]).astype(np.float64)
        else:
            bias = np.zeros(self._graph.initializers[conv.input[1]].dims[0])
        return ChannelSteps(None, bias, "")

    def _apply(
        self,
        conv: onnx.NodeProto,
        steps: ChannelSteps,
        values: dict[str, onnx.TensorProto],
        names: set[str],
    ) -> None:
        def new(wish: str, array: NDArray[Any]) -> str:
            name = take_name(wish, names)
            values[name] = onnx.numpy_helper.from_array(array.astype(np.float32), name)
            return name

        # Others may read the same initializers, so the results get names of their own.
        weight = conv.input[1]
        if steps.factor is not None:
            weight = new(f"{weight}_folded", steps.weight(self._graph.array(weight)))
        bias = new(f"{steps.last}_folded", steps.bias)
        del conv.input[1:]
        conv.input.extend([weight, bias])

    def _is_constant(self, name: str) -> bool:
        """Whether a tensor is a constant of floats."""
        graph = self._graph
        return graph.is_constant(name) and (
            graph.initializers[name].data_type == onnx.TensorProto.FLOAT
        )
