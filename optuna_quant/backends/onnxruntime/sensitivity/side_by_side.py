"""Runs an FP32 graph and, beside it, quantized copies of its ops in several candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.graph import assemble
from optuna_quant.backends.onnxruntime.model.tapped_session import tapped_session
from optuna_quant.backends.sensitivity.pieces import pieces_within


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray
    import onnxruntime

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source
    from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import QuantizedCopies
    from optuna_quant.backends.onnxruntime.sensitivity.quantized_copies import Shown

    Arrays = dict[str, NDArray[Any]]


class SideBySide:
    """Runs an FP32 graph once for each feed, and copies of its ops on the tensors that it gives.

    The FP32 graph is in memory once, however many candidates the copies are of.

    Args:
        graph:
            The graph.
        copies:
            The copies, of one candidate each.
        sessions:
            Says with which providers and options they run.
    """

    def __init__(
        self, graph: Graph, copies: Sequence[QuantizedCopies], sessions: SessionMaker
    ) -> None:
        self._graph = graph
        self._copies = copies
        self._sessions = sessions
        given = {*graph.inputs, *graph.initializers}
        reads = (name for each in copies for name in each.reads if name not in given)
        self.shown = list(dict.fromkeys(key.tensor for each in copies for key in each.tensors))
        self._exact = list(dict.fromkeys([*self.shown, *reads]))
        outside: dict[str, Source] = {}
        proto = assemble(graph.template, graph.nodes, graph.initializers, outside=outside)
        self._session = self._tapped(CompactModel(proto, outside), self._exact)
        dtypes = {out.name: _dtype(out.type) for out in self._session.get_outputs()}
        self._beside = [
            self._tapped(each.model(graph, dtypes), list(each.tensors.values())) for each in copies
        ]

    def exact(self, feed: Feed) -> Arrays:
        """The tensors of the FP32 graph that copies are of, and those that they read."""
        return dict(zip(self._exact, self._session.run(self._exact, feed), strict=True))

    def copied(self, place: int, feed: Feed, exact: Arrays) -> dict[Shown, NDArray[Any]]:
        """What the copies of one candidate give.

        Args:
            place:
                Which candidate.
            feed:
                What the model is run on.
            exact:
                What :meth:`exact` gives for it.
        """
        names = self._copies[place].tensors
        reads = {
            name: feed[name] if name in feed else exact[name]
            for name in self._copies[place].reads
            if name in feed or name in exact
        }
        values = self._beside[place].run(list(names.values()), reads)
        return dict(zip(names, values, strict=True))

    def feeds(self, data: CalibrationData, samples: int) -> Iterator[Feed]:
        """Samples in pieces, such that the tensors looked at take at most 256 MiB.

        Args:
            data:
                The samples.
            samples:
                How many, from the start.
        """
        return (piece.feed for piece in pieces_within(data, samples, self._nbytes))

    def _nbytes(self, feed: Feed) -> int:
        """How much is looked at: copies have the size of what they are copies of."""
        exact = self.exact(feed)
        shown = sum(exact[name].nbytes for name in self.shown)
        return shown + sum(value.nbytes for value in exact.values())

    def _tapped(self, model: CompactModel, tensors: list[str]) -> onnxruntime.InferenceSession:
        with self._sessions.lock:
            return tapped_session(model, tensors, self._graph.base_dir, sessions=self._sessions)


def _dtype(name: str) -> int:
    """The element type that the runtime calls ``tensor(float)``, ``tensor(int64)``, ..."""
    kind = name.removeprefix("tensor(").removesuffix(")")
    return int(onnx.TensorProto.DataType.Value(kind.upper()))
