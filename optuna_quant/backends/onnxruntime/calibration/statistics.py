"""The calibration statistics of a model, collected when they are first needed."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING

from optuna_quant.backends.calibration.statistics_bytes import pack
from optuna_quant.backends.calibration.statistics_bytes import unpack
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics
from optuna_quant.backends.onnxruntime.calibration.calibration import ALL
from optuna_quant.backends.onnxruntime.calibration.calibration import collect_statistics
from optuna_quant.backends.onnxruntime.calibration.calibration import warn_of_missing_samples
from optuna_quant.backends.onnxruntime.calibration.statistics_keys import statistics_keys
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.graph import assemble
from optuna_quant.backends.onnxruntime.model.zero_tensors import zero_tensors
from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.ranges.ranges import scale_zero_point
from optuna_quant.backends.ranges.tensor_range import RANGE_OF_ZEROS


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.cache import CalibrationCache
    from optuna_quant.backends.calibration.channel_means import Place
    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source
    from optuna_quant.space.config import TensorConfig


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
        self._means: frozenset[Place] = frozenset()
        self._found: dict[int, dict[str, CalibrationStatistics]] = {}
        self._keys: dict[tuple[tuple[str, ...], tuple[int, ...]], dict[int, str]] = {}

    @cached_property
    def _model(self) -> CompactModel:
        graph = self._graph
        outside: dict[str, Source] = {}
        return CompactModel(
            assemble(graph.template, graph.nodes, graph.initializers, outside=outside), outside
        )

    def expect_means(self, places: Iterable[Place]) -> None:
        """From now on collect the means of channels as well, where these are of the tensors.

        If they are new, what has been collected before is forgotten, so that one pass gives all.
        """
        if not self._means.issuperset(places):
            self._means |= frozenset(places)
            self._found.clear()
            self._keys.clear()

    def has(self, tensors: Iterable[str], size: int | None) -> bool:
        """Whether the statistics of these tensors have been collected."""
        return self._found.get(size or ALL, {}).keys() >= set(tensors)

    def collect(self, tensors: Collection[str], sizes: Iterable[int | None]) -> None:
        """Collect the statistics of tensors, in one pass over the data.

        Args:
            tensors:
                The tensors. Those that have been collected for all sizes are not again.
            sizes:
                Numbers of samples from the start of the data; None for all.
        """
        numbers, missing = self._missing(tensors, sizes)
        if not missing:
            return
        with self._sessions.lock:
            statistics = collect_statistics(
                self._model,
                missing,
                self._data,
                numbers,
                means=self._means_of(missing),
                base_dir=self._graph.base_dir,
                sessions=self._sessions,
                cache=self._cache,
                keys=self._keys.get((tuple(missing), tuple(numbers))),
            )
        self._add(missing, statistics)

    def load(self, tensors: Collection[str], sizes: Iterable[int | None]) -> bool:
        """Whether the statistics of tensors are at hand, in memory or in the cache on disk.

        Args:
            tensors:
                The tensors.
            sizes:
                As for :meth:`collect`.
        """
        numbers, missing = self._missing(tensors, sizes)
        if not missing:
            return True
        if self._cache is None:
            return False
        keys = self._keys_of(missing, numbers)
        if not all(self._cache.path(key).exists() for key in keys.values()):
            return False
        cached = {number: self._cache.load(key) for number, key in keys.items()}
        found = {number: entry for number, entry in cached.items() if entry is not None}
        if len(found) < len(cached):
            return False
        self._adopt(missing, found)
        return True

    def key(self, tensors: Collection[str], sizes: Iterable[int | None]) -> str:
        """A hash of all that the statistics of tensors depend on; the data are read for it once.

        For the arguments see :meth:`collect`.
        """
        keys = self._keys_of(sorted(tensors), [size or ALL for size in sizes])
        return hashlib.sha256(
            " ".join(keys[number] for number in sorted(keys)).encode()
        ).hexdigest()

    def dump(self, tensors: Collection[str], sizes: Iterable[int | None]) -> bytes:
        """The statistics of tensors, which have been collected, as bytes.

        For the arguments see :meth:`collect`.
        """
        numbers = [size or ALL for size in sizes]
        statistics = {}
        for number in numbers:
            found = self._found[number]
            histograms = {
                name: found[name].histograms[name]
                for name in sorted(tensors)
                if name in found[name].histograms
            }
            unusable = {
                name: found[name].unusable[name]
                for name in sorted(tensors)
                if name in found[name].unusable
            }
            faults = {
                name: found[name].faults[name] for name in unusable if name in found[name].faults
            }
            extremes = {name: found[name].extremes[name] for name in histograms}
            means = {
                (name, axis): found[name].means[name, axis]
                for name, axis in self._means_of(sorted(histograms))
                if (name, axis) in found[name].means
            }
            samples = max((found[name].samples for name in tensors), default=0)
            statistics[number] = CalibrationStatistics(
                histograms, samples, unusable, extremes, means, faults
            )
        return pack(self.key(tensors, numbers), statistics)

    def restore(self, data: bytes, tensors: Collection[str], sizes: Iterable[int | None]) -> None:
        """Take what :meth:`dump` has given, in another process, for the same arguments.

        Raises:
            ValueError:
                If the bytes are damaged, or were made from another model or other data.
        """
        numbers = [size or ALL for size in sizes]
        found = unpack(data, self.key(tensors, numbers))
        self._adopt(sorted(tensors), found)
        if self._cache is not None:
            for number, key in self._keys_of(sorted(tensors), numbers).items():
                if not self._cache.path(key).exists():
                    self._cache.store(key, found[number])

    def _missing(
        self, tensors: Collection[str], sizes: Iterable[int | None]
    ) -> tuple[list[int], list[str]]:
        """The sizes as numbers, and the tensors that have not been collected for all of them."""
        numbers = [size or ALL for size in sizes]
        known = [self._found.setdefault(number, {}) for number in numbers]
        return numbers, sorted(name for name in tensors if any(name not in e for e in known))

    def _keys_of(self, tensors: list[str], numbers: list[int]) -> dict[int, str]:
        place = (tuple(tensors), tuple(numbers))
        if place not in self._keys:
            self._keys[place] = statistics_keys(
                self._graph.to_model(),
                tensors,
                self._data,
                numbers,
                means=self._means_of(tensors),
                base_dir=self._graph.base_dir,
                providers=self._sessions.providers,
            )
        return self._keys[place]

    def _means_of(self, tensors: Collection[str]) -> list[Place]:
        wanted = set(tensors)
        return sorted(place for place in self._means if place[0] in wanted)

    def _adopt(self, tensors: list[str], found: dict[int, CalibrationStatistics]) -> None:
        warn_of_missing_samples(found, self._data)
        self._add(tensors, found)

    def _add(self, tensors: list[str], found: dict[int, CalibrationStatistics]) -> None:
        for number, statistics in found.items():
            own = self._found.setdefault(number, {})
            for name in tensors:
                own.setdefault(name, statistics)  # What ranges came from stays.

    def check_any(self, tensors: Collection[str], sizes: Iterable[int | None]) -> None:
        """Check that there is anything at all to quantize by.

        For the arguments see :meth:`collect`; what has not been collected is left out.

        Raises:
            ValueError:
                If none of the tensors that have been collected has a range.
        """
        # What is wrong shows best at the inputs, then at what is computed first.
        ordered = sorted(tensors, key=lambda name: (self._graph.producer.get(name, -1), name))
        for size in sizes:
            found = self._found.get(size or ALL, {})
            problems = []
            for name in ordered:
                if name in found and name not in self._zeros:
                    problems.append(found[name].problem(name))
                    if problems[-1] is None:
                        break
            else:
                if problems:
                    raise ValueError(
                        f"{problems[0]} None of the {len(problems)} tensors to be quantized has "
                        "a range. Check the calibration data and their preprocessing."
                    )

    @cached_property
    def _zeros(self) -> frozenset[str]:
        return zero_tensors(self._graph)

    def params(self, tensor: str, config: TensorConfig, size: int | None) -> Params:
        """How to quantize a tensor whose statistics have been collected.

        Raises:
            NoRangeError:
                If they give it no range.
        """
        if tensor in self._zeros:
            rmin, rmax = RANGE_OF_ZEROS
        else:
            statistics = self._found[size or ALL][tensor]
            rmin, rmax = statistics.range(tensor, config.algorithm, config.dtype, config.scheme)
        scale, zero_point = scale_zero_point(rmin, rmax, config.dtype, config.scheme)
        return Params(float(scale), int(zero_point), config.dtype)

    def mean(self, tensor: str, axis: int, size: int | None) -> NDArray[np.float64] | None:
        """The means of a tensor's channels, which were expected and have been collected.

        Args:
            tensor:
                The tensor.
            axis:
                The axis of its channels.
            size:
                How many samples from the start of the data; None for all.

        Returns:
            The means; None if it has no values there, or such as have no finite means.
        """
        statistics = self._found.get(size or ALL, {}).get(tensor)
        return None if statistics is None else statistics.means.get((tensor, axis))
