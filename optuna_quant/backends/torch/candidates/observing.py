"""One pass over the calibration data, which sees the activations of all ops."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger
import torch

from optuna_quant.backends.calibration.faulty_samples import FaultySamples
from optuna_quant.backends.calibration.faulty_samples import OutputCheck
from optuna_quant.backends.calibration.faulty_samples import shown_samples
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics
from optuna_quant.backends.ranges.extremes import SampleExtremes
from optuna_quant.backends.ranges.extremes import extremes_of
from optuna_quant.backends.ranges.histogram import NotFiniteError
from optuna_quant.backends.ranges.histogram import StreamingHistogram
from optuna_quant.backends.torch.graph.switched import Switch


if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.weight_algorithms.moments import InputMoments


_logger = get_logger(__name__)


class _Observer(torch.nn.Module):
    """Shows a tensor to a collector, and gives it on."""

    def __init__(self, tensor: str, collector: _Collector) -> None:
        super().__init__()
        self._tensor = tensor
        self._show = collector.show

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The argument."""
        self._show(self._tensor, x)
        return x


class _Collector:
    """Collects histograms, extremes and moments of tensors.

    Args:
        moments:
            Where the moments of a tensor are added up, by its name.
        ranges:
            Whether histograms are wanted.
    """

    def __init__(self, moments: Mapping[str, Sequence[InputMoments]], *, ranges: bool) -> None:
        self._moments = moments
        self._ranges = ranges
        self._streams: dict[str, StreamingHistogram] = {}
        self._extremes: dict[str, SampleExtremes] = {}
        self._unusable: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        self._fresh: dict[str, NotFiniteError] = {}
        self._seen: set[str] = set()
        self._wanted: Collection[str] | None = None
        self._values: dict[str, NDArray[Any]] = {}
        self.samples = 0

    @property
    def fresh(self) -> Collection[str]:
        """The tensors that turned out to have no range since :meth:`settle` was called."""
        return tuple(self._fresh)

    def start(self, samples: int) -> None:
        """From now on the tensors are those of so many samples."""
        self.samples = samples
        self._seen.clear()

    @contextlib.contextmanager
    def only_showing(self, wanted: Collection[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Count nothing meanwhile; the values of the wanted tensors come into what is given."""
        self._wanted, self._values = wanted, {}
        try:
            yield self._values
        finally:
            self._wanted = None

    def settle(self, places: Mapping[str, str]) -> None:
        """Keep what was wrong with tensors, and where that was seen first."""
        for name, error in self._fresh.items():
            self._unusable[name] = f"{error} Seen in {places[name]}."
            if not error.is_mask:
                self._faults[name] = places[name]
        self._fresh.clear()

    def show(self, tensor: str, x: torch.Tensor) -> None:
        """Count a tensor, unless an op before has shown it."""
        if self._wanted is not None:
            if tensor in self._wanted:
                self._values[tensor] = x.detach().cpu().numpy()
            return
        if tensor in self._seen:
            return
        self._seen.add(tensor)
        values: NDArray[Any] = x.detach().cpu().numpy()
        if self._ranges and tensor not in self._unusable:
            self._count(tensor, values)
        for moments in self._moments.get(tensor, ()):
            moments.add(values)

    def _count(self, tensor: str, values: NDArray[Any]) -> None:
        try:
            self._streams.setdefault(tensor, StreamingHistogram(tensor)).update(values)
        except NotFiniteError as error:
            self._fresh[tensor] = error
            del self._streams[tensor]
            self._extremes.pop(tensor, None)
            return
        found = extremes_of(values, self.samples)
        self._extremes[tensor] = self._extremes.get(tensor, SampleExtremes()) + found

    def statistics(self, samples: int) -> CalibrationStatistics:
        """What has been seen so far."""
        histograms = {name: stream.snapshot() for name, stream in self._streams.items()}
        return CalibrationStatistics(
            histograms,
            samples,
            dict(self._unusable),
            dict(self._extremes),
            faults=dict(self._faults),
        )


def collect_statistics(
    program: SwitchedProgram, data: CalibrationData, sizes: Iterable[int]
) -> dict[int, CalibrationStatistics]:
    """The statistics of all activations of ops, in one pass whatever the number of sizes.

    Args:
        program:
            The program.
        data:
            The calibration data.
        sizes:
            Numbers of samples from the start of the data.

    Returns:
        The statistics for each size; if the data end before it, those of all the data.

    Raises:
        RuntimeError:
            If the program fails on a batch.
        ValueError:
            If its first output is NaN for some of the samples.
    """
    started = time.perf_counter()
    wanted = sorted(set(sizes))
    collector = _Collector({}, ranges=True)
    found: dict[int, CalibrationStatistics] = {}
    seen = 0
    for samples, reached in _passed(program, data, wanted, collector):
        seen += samples
        if reached:
            found.update(dict.fromkeys(reached, collector.statistics(seen)))
    everything = collector.statistics(seen)
    _logger.info(
        f"Calibrated {len(everything.histograms)} tensors on {seen} samples in "
        f"{time.perf_counter() - started:.1f} s."
    )
    return {size: found.get(size, everything) for size in wanted}


def collect_moments(
    program: SwitchedProgram,
    data: CalibrationData,
    moments: Mapping[str, Sequence[InputMoments]],
    size: int,
) -> None:
    """Add up the moments of tensors over the first samples of the data.

    Args:
        program:
            The program.
        data:
            The calibration data.
        moments:
            Where they are added up, by the name of the tensor.
        size:
            How many samples.
    """
    collector = _Collector(moments, ranges=False)
    for _ in _passed(program, data, [size], collector):
        continue


def _passed(
    program: SwitchedProgram,
    data: CalibrationData,
    sizes: Sequence[int],
    collector: _Collector,
) -> Iterable[tuple[int, tuple[int, ...]]]:
    """Run the program on the data, piece by piece: how many samples, and the sizes reached."""
    switch = Switch()
    for op in program.ops:
        for slot, source in zip(program.slots[op.name].activations, op.sources, strict=True):
            switch.modules[slot] = _Observer(source, collector)
    model = program.switched(switch)
    name = next(iter(program.form.output_names), None)

    def output(feed: Feed) -> NDArray[Any] | None:
        """Show the tensors of a batch; its first output."""
        with torch.no_grad():
            outputs = model(*program.inputs_of_call(program.tensors_of(feed)))
        found = None if name is None else program.named_outputs(outputs)[name]
        return found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else None

    def values_of(feed: Feed, tensors: Collection[str]) -> Mapping[str, NDArray[Any]]:
        with collector.only_showing(tensors) as values:
            found = output(feed)
        if name in tensors and name is not None and found is not None:
            values.setdefault(name, found)
        return values

    faults = FaultySamples(data, values_of)
    check = OutputCheck(faults)
    seen = 0
    for piece in data.pieces(sizes):
        collector.start(piece.samples)
        try:
            found = output(piece.feed)
        except Exception as error:
            where = shown_samples(seen, piece.samples)
            shapes = {name: array.shape for name, array in piece.feed.items()}
            raise RuntimeError(
                f"The model failed on {where}, with inputs of shape {shapes}: {error}"
            ) from error
        if name is not None and found is not None:
            check.see(name, found, piece, seen)
        collector.settle(faults.find(collector.fresh, piece, seen))
        seen += piece.samples
        yield piece.samples, piece.reached
    check.check()
