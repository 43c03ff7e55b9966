"""Running a graph for the values of some of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.graph import assemble
from optuna_quant.backends.onnxruntime.model.tapped_session import tapped_session


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source


class TappedGraph:
    """Gives the values of tensors, inputs of the graph among them.

    To be made and used under the lock of the sessions.

    Args:
        graph:
            The graph.
        tensors:
            The names of the tensors.
        sessions:
            Says with which providers and options it runs.
    """

    def __init__(self, graph: Graph, tensors: Iterable[str], sessions: SessionMaker) -> None:
        names = list(tensors)
        self._given = [name for name in names if name in graph.inputs]
        self._computed = [name for name in names if name not in graph.inputs]
        self._session = None
        if self._computed:
            outside: dict[str, Source] = {}
            proto = assemble(graph.template, graph.nodes, graph.initializers, outside=outside)
            self._session = tapped_session(
                CompactModel(proto, outside),
                self._computed,
                graph.base_dir,
                sessions=sessions,
            )

    def values(self, feed: Feed) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Each tensor with its values for one batch."""
        for name in self._given:
            yield name, feed[name]
        if self._session is None:
            return
        values = self._session.run(self._computed, feed)
        # From the end, so that each array is dropped as soon as it was looked at.
        for name in reversed(self._computed):
            yield name, values.pop()
