"""The graph of a model, as far as pictures of it need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class GraphNode:
    """A node of a model's graph.

    Args:
        name:
            The name of the node, unique in the model.
        op_type:
            Its op type.
        inputs:
            The names of the nodes whose outputs it reads, each once.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]


@runtime_checkable
class HasGraph(Protocol):
    """A backend that knows the graph of its model."""

    def graph_nodes(self) -> Sequence[GraphNode]:
        """All nodes of the model, producers first; the ops of the capability are among them."""
        ...
