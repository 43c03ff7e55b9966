"""Tensors that have to be scaled together, channel by channel, and the constants that can do it.

Where a tensor is divided by a factor per channel, so must be all that it is added to and all that
passes it on; in the end there are constants that take the factors in: those of the ops that give
the channels, and those of the ops that read them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.recipes.scaling.flow import Channels
from optuna_quant.backends.onnxruntime.recipes.scaling.flow import Flow
from optuna_quant.backends.onnxruntime.recipes.scaling.layouts import WeightLayout
from optuna_quant.backends.onnxruntime.recipes.scaling.layouts import weight_layout


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.onnxruntime.model.graph import Graph


@dataclass(frozen=True)
class Weighted:
    """An op with a weight whose channels are scaled.

    Args:
        index:
            The node's position in the graph.
        layout:
            The layout of its weight.
        repeat:
            How many neighbours on the channel axis belong to one channel.
    """

    index: int
    layout: WeightLayout
    repeat: int = 1


@dataclass(frozen=True)
class Constant:
    """A constant per channel that is divided by the factors of what it is added to or gives.

    Args:
        index:
            The node's position in the graph.
        position:
            Which of its inputs it is.
        axis:
            The channel axis, from the end.
        repeat:
            How many neighbours on that axis belong to one channel.
        inverse:
            Whether it is multiplied instead, because it is a divisor.
    """

    index: int
    position: int
    axis: int
    repeat: int = 1
    inverse: bool = False


@dataclass(frozen=True)
class ScaleGroup:
    """Tensors that are scaled together.

    Args:
        tensors:
            The tensors, with the place of their channels.
        sources:
            The ops with weights that give them.
        readers:
            The ops with weights that read them.
        constants:
            What else is changed with them.
        channels:
            How many factors there are.
    """

    tensors: Mapping[str, Channels]
    sources: tuple[Weighted, ...]
    readers: tuple[Weighted, ...]
    constants: tuple[Constant, ...]
    channels: int


@dataclass
class _Found:
    tensors: dict[str, Channels] = field(default_factory=dict)
    sources: dict[int, Weighted] = field(default_factory=dict)
    readers: dict[int, Weighted] = field(default_factory=dict)
    constants: dict[tuple[int, int], Constant] = field(default_factory=dict)


class ScaleGroups:
    """Finds the groups of a graph.

    Args:
        graph:
            The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._flow = Flow(graph)

    def all(self) -> list[ScaleGroup]:
        """The groups between ops with weights, in the order of the graph."""
        found, seen = [], set[str]()
        for node in self._graph.nodes:
            layout = weight_layout(node, self._graph)
            if layout is None or node.output[0] in seen:
                continue
            group = self.around(node.output[0], Channels(layout.axis))
            if group is not None:
                seen |= group.tensors.keys()
                if group.sources and group.readers:
                    found.append(group)
        return found

    def around(self, tensor: str, channels: Channels) -> ScaleGroup | None:
        """The group of a tensor; None if somebody gives or reads it who takes no factors in.

        Args:
            tensor:
                The tensor.
            channels:
                The place of its channels.
        """
        found = _Found()
        waiting = deque([(tensor, channels)])
        while waiting:
            name, place = waiting.popleft()
            if name in found.tensors:
                if found.tensors[name] != place:
                    return None
                continue
            found.tensors[name] = place
            linked = self._linked(name, place, found)
            if linked is None:
                return None
            waiting.extend(linked)
        self._drop_passed(found)
        count = self._count(found)
        if count is None:
            return None
        return ScaleGroup(
            found.tensors,
            tuple(found.sources[i] for i in sorted(found.sources)),
            tuple(found.readers[i] for i in sorted(found.readers)),
            tuple(found.constants[key] for key in sorted(found.constants)),
            count,
        )

    def _linked(
        self, tensor: str, place: Channels, found: _Found
    ) -> list[tuple[str, Channels]] | None:
        """What is scaled with a tensor; None if it cannot be scaled."""
        graph = self._graph
        if tensor in graph.inputs | graph.outputs | graph.captured:
            return None
        producer = graph.producer.get(tensor)
        if producer is None:
            return None
        linked: list[tuple[str, Channels]] = []
        for index, position in [(producer, None), *graph.readers.get(tensor, ())]:
            more = self._through(index, position, tensor, place, found)
            if more is None:
                return None
            linked += more
        return linked

    def _through(
        self, index: int, position: int | None, tensor: str, place: Channels, found: _Found
    ) -> list[tuple[str, Channels]] | None:
        """What a node that gives (position None) or reads a tensor makes of its factors."""
        node = self._graph.nodes[index]
        layout = weight_layout(node, self._graph)
        if layout is not None:
            if position == 0 and layout.axis == place.axis:
                found.readers[index] = Weighted(index, layout, place.repeat)
                return []
            if position is None and layout.axis == place.axis and place.repeat == 1:
                found.sources[index] = Weighted(index, layout)
                return []
            return None
        step = self._flow.through(node, position, tensor, place)
        if step is None:
            return None
        for constant, inverse in step.constants:
            key = index, constant
            found.constants[key] = Constant(index, constant, place.axis, place.repeat, inverse)
        return list(step.linked)

    def _drop_passed(self, found: _Found) -> None:
        """Leave factors alone that multiply what is scaled itself."""
        for index, position in list(found.constants):
            node = self._graph.nodes[index]
            read = {name for j, name in enumerate(node.input) if j != position}
            if node.op_type in ("Div", "Mul") and not read.isdisjoint(found.tensors):
                del found.constants[index, position]

    def _count(self, found: _Found) -> int | None:
        """How many channels a group has; None if its members contradict each other."""
        counts = set[int | None]()
        for source in found.sources.values():
            weight = self._graph.nodes[source.index].input[1]
            counts.add(self._channels(source.layout, weight, source.layout.output_axis, 1))
        for reader in found.readers.values():
            weight = self._graph.nodes[reader.index].input[1]
            axis = reader.layout.input_axis
            counts.add(self._channels(reader.layout, weight, axis, reader.repeat))
        if not counts:
            counts.update({self._size(c) for c in found.constants.values()} - {1})
        return counts.pop() if len(counts) == 1 and None not in counts else None

    def _channels(self, layout: WeightLayout, weight: str, axis: int, repeat: int) -> int | None:
        size = int(self._graph.initializers[weight].dims[axis])
        if axis != layout.split_axis:
            size *= layout.groups
        return None if size % repeat else size // repeat

    def _size(self, constant: Constant) -> int:
        dims = self._graph.initializers[
            self._graph.nodes[constant.index].input[constant.position]
        ].dims
        return int(dims[constant.axis]) // constant.repeat if -constant.axis <= len(dims) else 1
