"""Collecting the range statistics of a model's tensors in one pass over the data."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import os
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.steps import doing
from optuna_quant.backends.calibration.cache import CalibrationCache
from optuna_quant.backends.calibration.channel_means import ChannelSum
from optuna_quant.backends.calibration.faulty_samples import FaultySamples
from optuna_quant.backends.calibration.faulty_samples import OutputCheck
from optuna_quant.backends.calibration.faulty_samples import shown_samples
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics
from optuna_quant.backends.onnxruntime.calibration.statistics_keys import DEFAULT_PROVIDERS
from optuna_quant.backends.onnxruntime.calibration.statistics_keys import statistics_keys
from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import source_array
from optuna_quant.backends.onnxruntime.model.content import external_tensors
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.model.session_run import run_session
from optuna_quant.backends.onnxruntime.model.tapped_session import tapped_session
from optuna_quant.backends.ranges.extremes import SampleExtremes
from optuna_quant.backends.ranges.extremes import extremes_of
from optuna_quant.backends.ranges.histogram import NotFiniteError
from optuna_quant.backends.ranges.histogram import StreamingHistogram


if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray
    import onnx

    from optuna_quant.backends.calibration.channel_means import Place
    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.calibration.pieces import Piece


_logger = get_logger(__name__)

_FLOAT_TYPES = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})

ALL = 1 << 62
"""The sampling size that stands for all samples, however many there are."""


def collect_statistics(
    model: onnx.ModelProto | CompactModel,
    tensors: Iterable[str],
    data: CalibrationData,
    sizes: Iterable[int],
    *,
    means: Collection[Place] = (),
    base_dir: str | os.PathLike[str] | None = None,
    sessions: SessionMaker | None = None,
    cache: CalibrationCache | None = None,
    keys: Mapping[int, str] | None = None,
) -> dict[int, CalibrationStatistics]:
    """Collect the statistics of a model's tensors, in one pass whatever the number of sizes.

    The model runs once over the first ``max(sizes)`` samples with the tensors as its outputs and
    graph optimizations off, so that every tensor exists. Histograms take 64 KiB a tensor and do
    not grow with the data; beside them one batch of data and its tensors are in memory, so a
    smaller batch size is the cure if memory is short. The statistics do not depend on the order of
    the samples, nor on the batches, but for the extremes of samples that cannot be told apart (see
    :func:`~optuna_quant.backends.ranges.extremes.extremes_of`).

    Args:
        model:
            The model; not changed. External data may be referred to instead of loaded, and must be
            if the model is over 2 GB.
        tensors:
            Names of the tensors, of the main graph: inputs, initializers, node outputs. Those that
            are not floating-point get no histogram, nor do those that hold NaN or infinities.
        data:
            The calibration data.
        sizes:
            Sampling sizes: numbers of samples from the start of the data. See
            :meth:`~optuna_quant.backends.calibration.data.CalibrationData.pieces` for
            sizes that are not at the end of a batch. If the data end before a size, there is a
            warning and its statistics are those of all the data.
        means:
            The tensors among them whose channels get means, each with the axis of its channels.
            Unlike all else the last bits of a mean depend on the order of the samples.
        base_dir:
            The directory that the model's external data are relative to.
        sessions:
            Says with which providers and options the model runs; None for the CPU and the
            defaults. The optimization level and the folder of external data are set while the
            session is made, and then put back. Its lock must be held.
        cache:
            Where to look for the statistics first, and to keep them.
        keys:
            What :func:`statistics_keys` gives for these arguments, if it is known.

    Returns:
        The statistics for each size.

    Raises:
        ValueError:
            If a tensor is not in the model's main graph, if the data do not fit the model, if
            external data are there without ``base_dir``, if the model is over 2 GB with its data
            loaded, or if its first output is NaN for some of the samples.
        RuntimeError:
            If the model fails on a batch.
    """
    wanted = list(dict.fromkeys(tensors))
    pending = sorted(set(sizes))
    if not pending:
        raise ValueError("No calibration sampling size is given.")
    proto = model.proto if isinstance(model, CompactModel) else model
    _check_tensors(proto, wanted)
    if base_dir is None and any(external_tensors(proto)):
        raise ValueError("The model has external data; pass base_dir, the directory they are in.")
    found: dict[int, CalibrationStatistics] = {}
    sessions = sessions or SessionMaker(DEFAULT_PROVIDERS, None)
    keys = keys or {}
    if cache is not None:
        if not keys:
            whole = model.whole() if isinstance(model, CompactModel) else model
            keys = statistics_keys(
                whole,
                wanted,
                data,
                pending,
                means=means,
                base_dir=base_dir,
                providers=sessions.providers,
            )
        cached = {size: cache.load(keys[size]) for size in pending}
        found = {size: entry for size, entry in cached.items() if entry is not None}
    pending = [size for size in pending if size not in found]
    if pending:
        collector = _Collector(model, wanted, means, base_dir, sessions)
        for size, statistics in collector.collect(data, pending).items():
            found[size] = statistics
            if cache is not None:
                cache.store(keys[size], statistics)
    warn_of_missing_samples(found, data)
    return dict(sorted(found.items()))


def warn_of_missing_samples(
    found: Mapping[int, CalibrationStatistics], data: CalibrationData
) -> None:
    """Warn of each sampling size that the data do not reach; :data:`ALL` is none."""
    for size, statistics in sorted(found.items()):
        if size != ALL and statistics.samples < size:
            data.warn_of_shortage(size, statistics.samples)


def _check_tensors(model: onnx.ModelProto, tensors: Iterable[str]) -> None:
    known = {name for node in model.graph.node for name in node.output if name}
    known.update(value.name for value in model.graph.input)
    known.update(initializer.name for initializer in model.graph.initializer)
    for name in tensors:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise ValueError(f"The model's main graph has no tensor {name!r}.{hint}")


class _Collector:
    """A session with the wanted tensors as outputs, and their histograms."""

    def __init__(
        self,
        model: onnx.ModelProto | CompactModel,
        wanted: Sequence[str],
        means: Collection[Place],
        base_dir: str | os.PathLike[str] | None,
        sessions: SessionMaker,
    ) -> None:
        proto = model.proto if isinstance(model, CompactModel) else model
        outside = model.outside if isinstance(model, CompactModel) else {}

        self._streams: dict[str, StreamingHistogram] = {}
        self._extremes: dict[str, SampleExtremes] = {}
        self._sums: dict[str, dict[int, ChannelSum]] = {}
        for name, axis in sorted(means):
            self._sums.setdefault(name, {})[axis] = ChannelSum()
        self._unusable: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        self._fresh: dict[str, NotFiniteError] = {}
        initializers = {initializer.name: initializer for initializer in proto.graph.initializer}
        for name in wanted:
            if name in initializers:
                values = source_array(outside.get(name, initializers[name]), base_dir)
                self._count(name, values, 1)
        self._settle(dict.fromkeys(self._fresh, "the model"))
        inputs = {value.name for value in proto.graph.input} - initializers.keys()
        self._session = None
        self._outputs: list[str] = []
        known = inputs | initializers.keys()
        computed = [name for name in wanted if name not in known]
        self._counted = frozenset(wanted)
        # The output that data for evaluation are checked by.
        self._checked = next(
            (each.name for each in proto.graph.output[:1] if each.name not in known), None
        )
        if computed:
            if self._checked is not None and self._checked not in self._counted:
                computed.append(self._checked)
            self._session = tapped_session(model, computed, base_dir, sessions=sessions)
            types = {output.name: output.type for output in self._session.get_outputs()}
            self._outputs = [name for name in computed if types[name] in _FLOAT_TYPES]
        self._inputs = [name for name in wanted if name in inputs]

    def collect(
        self, data: CalibrationData, sizes: Sequence[int]
    ) -> dict[int, CalibrationStatistics]:
        started = time.perf_counter()
        result: dict[int, CalibrationStatistics] = {}
        seen = 0
        faults = FaultySamples(data, self._values_of)
        check = OutputCheck(faults)
        with doing("Running the calibration data through the model"):
            for piece in data.pieces(sizes):
                for name, values in self._values(piece, shown_samples(seen, piece.samples)):
                    if name == self._checked:
                        check.see(name, values, piece, seen)
                    if name in self._counted:
                        self._count(name, values, piece.samples)
                self._settle(faults.find(self._fresh, piece, seen))
                seen += piece.samples
                if piece.reached:
                    result.update(dict.fromkeys(piece.reached, self._statistics(seen)))
        check.check()
        if len(result) < len(sizes):
            everything = self._statistics(seen)
            result = {size: result.get(size, everything) for size in sizes}
        _logger.info(
            f"Calibrated {len(self._streams)} tensors on {seen} samples in "
            f"{time.perf_counter() - started:.1f} s."
        )
        return result

    def _values_of(self, feed: Feed, tensors: Collection[str]) -> dict[str, NDArray[Any]]:
        """The values of tensors for one sample."""
        found = {name: feed[name] for name in tensors if name in feed}
        names = [name for name in tensors if name not in feed]
        if names and self._session is not None:
            found.update(zip(names, run_session(self._session, names, feed), strict=True))
        return found

    def _settle(self, places: Mapping[str, str]) -> None:
        """Keep what was wrong with tensors, and where that was seen first."""
        for name, error in self._fresh.items():
            self._unusable[name] = f"{error} Seen in {places[name]}."
            if not error.is_mask:
                self._faults[name] = places[name]
        self._fresh.clear()

    def _count(self, name: str, values: NDArray[Any], samples: int) -> None:
        if name in self._unusable or not np.issubdtype(values.dtype, np.floating):
            return
        try:
            self._streams.setdefault(name, StreamingHistogram(name)).update(values)
        except NotFiniteError as error:
            self._fresh[name] = error
            del self._streams[name]
            self._extremes.pop(name, None)
            self._sums.pop(name, None)
            return
        found = extremes_of(values, samples)
        self._extremes[name] = self._extremes.get(name, SampleExtremes()) + found
        for axis, total in self._sums.get(name, {}).items():
            total.add(values, axis)

    def _values(self, piece: Piece, where: str) -> Iterator[tuple[str, NDArray[Any]]]:
        for name in self._inputs:
            yield name, piece.feed[name]
        if self._session is None or not self._outputs:
            return
        try:
            outputs = run_session(self._session, self._outputs, piece.feed)
        except Exception as error:
            shapes = {name: array.shape for name, array in piece.feed.items()}
            notes = getattr(error, "__notes__", ())
            said = " ".join([str(error).strip() + ("." if notes else ""), *notes])
            raise RuntimeError(
                f"The model failed on {where}, with inputs of shape {shapes}: {said}"
            ) from error
        # From the end, so that each array is dropped as soon as it has been counted.
        for name in reversed(self._outputs):
            yield name, outputs.pop()

    def _statistics(self, samples: int) -> CalibrationStatistics:
        histograms = {name: stream.snapshot() for name, stream in self._streams.items()}
        means = {
            (name, axis): total.mean()
            for name, sums in self._sums.items()
            for axis, total in sums.items()
        }
        return CalibrationStatistics(
            histograms,
            samples,
            dict(self._unusable),
            dict(self._extremes),
            {place: mean for place, mean in means.items() if mean is not None},
            dict(self._faults),
        )
