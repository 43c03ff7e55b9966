"""What nodes of the optimized graph are called, for people who know the model alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.executed.match import inherited_names


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.executed.match import Match


class HostNames:
    """Calls nodes of the optimized graph after the ops of the model whose work they do.

    The runtime has names of its own, such as that of a tensor with ``_nchwc`` behind it.

    Args:
        match:
            Which nodes do the work of which.
        ops:
            The names of ops, by the position of their node in the model.
    """

    def __init__(self, match: Match, ops: Mapping[int, str]) -> None:
        self._match = match
        self._ops = ops
        self._names = {node.name for node in match.source if node.name}

    def shown(self, host: onnx.NodeProto) -> str:
        """The type and the name of a node.

        Args:
            host:
                The node of the optimized graph.
        """
        inherited = (name for name in inherited_names(host.name) if name in self._names)
        name = self._owners.get(id(host)) or next(inherited, None)
        return host.op_type if name is None else f"{host.op_type} {name!r}"

    @cached_property
    def _owners(self) -> Mapping[int, str]:
        """The op that each node is there for: one of its type, whose work it does."""
        found: dict[int, str] = {}
        for position, node in enumerate(self._match.source):
            name = self._ops.get(position, node.name)
            if not name:
                continue
            hosts = self._match.hosts(position)
            if len(hosts) == 1 and node.op_type in hosts[0].op_type:
                found.setdefault(id(hosts[0]), name)
        return found
