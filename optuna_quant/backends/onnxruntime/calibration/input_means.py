"""The means of ops' inputs over the calibration data, which bias correction needs."""

from __future__ import annotations

from collections.abc import Mapping
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.content import tapped_session
from optuna_quant.backends.onnxruntime.model.graph import assemble


if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    import onnxruntime

    from optuna_quant.backends.onnxruntime.calibration.data import CalibrationData
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source


_logger = get_logger(__name__)

_ALL = 1 << 62


class InputMeansSource:
    """Collects the means of tensors along an axis, for all that are expected in one pass.

    Args:
        graph:
            The graph.
        data:
            The calibration data; batches may differ in length.
        sessions:
            Says with which providers and options the model runs.
        sizes:
            The sampling sizes that candidates may ask for; None among them stands for all samples.
    """

    def __init__(
        self,
        graph: Graph,
        data: CalibrationData,
        sessions: SessionMaker,
        sizes: Iterable[int | None],
    ) -> None:
        self._graph = graph
        self._data = data
        self._sessions = sessions
        self._sizes = [size or _ALL for size in sizes]
        self._tensors: frozenset[tuple[str, int]] = frozenset()
        self._found: dict[int, Mapping[tuple[str, int], NDArray[np.float64]]] = {}

    def expect(self, tensors: Iterable[tuple[str, int]]) -> None:
        """Collect for these when any are asked for: tensors and the axis that each has means of.

        What has been collected before is forgotten.
        """
        self._tensors |= frozenset(tensors)
        self._found = {}

    def get(self, tensor: str, axis: int, size: int | None) -> NDArray[np.float64] | None:
        """The means of a tensor.

        Args:
            tensor:
                The tensor, one of those expected with this axis.
            axis:
                The axis that is left.
            size:
                How many samples from the start of the data; None for all.

        Returns:
            The means, of shape ``[size of the axis]``; None if the tensor has no values there, or
            such as are not finite.
        """
        number = size or _ALL
        if number not in self._found:
            self._collect(dict.fromkeys([number, *self._sizes]))
        means = self._found[number].get((tensor, axis))
        return None if means is None or not np.isfinite(means).all() else means

    def _collect(self, sizes: Iterable[int]) -> None:
        sizes = [size for size in sizes if size not in self._found]
        started = time.perf_counter()
        names = sorted({name for name, _ in self._tensors})
        sums = {place: _Sum() for place in sorted(self._tensors)}
        samples = 0
        with self._sessions.lock:
            computed = [name for name in names if name not in self._graph.inputs]
            session = self._session(computed) if computed else None
            for piece in self._data.pieces(sizes):
                values = dict(piece.feed)
                if session is not None:
                    values.update(zip(computed, session.run(computed, piece.feed), strict=True))
                for (name, axis), total in sums.items():
                    total.add(values[name], axis)
                samples += piece.samples
                for size in piece.reached:
                    self._found[size] = _means(sums)
        for size in sizes:
            self._found.setdefault(size, _means(sums))
        _logger.info(
            f"Collected the means of {len(names)} tensors on {samples} samples in "
            f"{time.perf_counter() - started:.1f} s."
        )

    def _session(self, tensors: list[str]) -> onnxruntime.InferenceSession:
        outside: dict[str, Source] = {}
        graph = self._graph
        proto = assemble(graph.template, graph.nodes, graph.initializers, outside=outside)
        return tapped_session(
            CompactModel(proto, outside),
            tensors,
            graph.base_dir,
            providers=self._sessions.providers,
            session_options=self._sessions.options,
            arrays=self._sessions.arrays,
        )


class _Sum:
    """The sum of a tensor's values along one axis, and of how many."""

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | float = 0.0
        self._count = 0

    def add(self, values: NDArray[np.float32], axis: int) -> None:
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        # Of another width than so far it has no mean for each place.
        if np.ndim(self._sum) and np.shape(self._sum) != (values.shape[axis],):
            self._sum = np.full(1, np.nan)
        else:
            self._sum = self._sum + values.sum(axis=others, dtype=np.float64)
            self._count += values.size // max(1, values.shape[axis])

    def mean(self) -> NDArray[np.float64] | None:
        if not self._count or not isinstance(self._sum, np.ndarray):
            return None
        return self._sum / self._count


def _means(sums: Mapping[tuple[str, int], _Sum]) -> Mapping[tuple[str, int], NDArray[np.float64]]:
    found = ((place, total.mean()) for place, total in sums.items())
    return {place: mean for place, mean in found if mean is not None}
