"""The calibration statistics of a model, collected when they are first needed."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from typing import TYPE_CHECKING
import warnings

from optuna_quant.backends.onnxruntime.calibration import collect_statistics
from optuna_quant.backends.onnxruntime.ranges import scale_zero_point
from optuna_quant.backends.onnxruntime.static import Params


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.calibration import CalibrationCache
    from optuna_quant.backends.onnxruntime.calibration import CalibrationStatistics
    from optuna_quant.backends.onnxruntime.calibration_data import CalibrationData
    from optuna_quant.backends.onnxruntime.graph import Graph
    from optuna_quant.backends.onnxruntime.quantized_model import SessionMaker
    from optuna_quant.config import TensorConfig


_ALL = 1 << 62


class StatisticsSource:
    """Collects statistics, a pass over the data at a time, and gives parameters from them.

    Args:
        graph:
            The graph.
        data:
            The calibration data.
        sessions:
            Says with which providers and options the model runs.
        cache:
            Keeps the statistics on disk.
    """

    def __init__(
        self,
        graph: Graph,
        data: CalibrationData,
        sessions: SessionMaker,
        cache: CalibrationCache | None,
    ) -> None:
        self._graph = graph
        self._data = data
        self._sessions = sessions
        self._cache = cache
        self._found: dict[int, dict[str, CalibrationStatistics]] = {}

    def has(self, tensors: Iterable[str], size: int | None) -> bool:
        """Whether the statistics of these tensors have been collected."""
        return self._found.get(size or _ALL, {}).keys() >= set(tensors)

    def collect(self, tensors: Collection[str], sizes: Iterable[int | None]) -> None:
        """Collect the statistics of tensors, in one pass over the data.

        Args:
            tensors:
                The tensors. Those that have been collected for all sizes are not again.
            sizes:
                Numbers of samples from the start of the data; None for all.
        """
        numbers = [size or _ALL for size in sizes]
        known = [self._found.setdefault(number, {}) for number in numbers]
        missing = sorted(name for name in tensors if any(name not in entry for entry in known))
        if not missing:
            return
        with warnings.catch_warnings(), self._sessions.lock:
            # The stand-in for "all of them" is more than there are.
            warnings.filterwarnings("ignore", message=f"The calibration sampling size is {_ALL}")
            statistics = collect_statistics(
                self._graph.to_model(),
                missing,
                self._data,
                numbers,
                base_dir=self._graph.base_dir,
                providers=self._sessions.providers,
                session_options=self._sessions.options,
                cache=self._cache,
            )
        for number in numbers:
            self._found[number].update(dict.fromkeys(missing, statistics[number]))

    def params(self, tensor: str, config: TensorConfig, size: int | None) -> Params:
        """How to quantize a tensor whose statistics have been collected."""
        statistics = self._found[size or _ALL][tensor]
        rmin, rmax = statistics.range(tensor, config.algorithm, config.dtype, config.scheme)
        scale, zero_point = scale_zero_point(rmin, rmax, config.dtype, config.scheme)
        return Params(float(scale), int(zero_point), config.dtype)
