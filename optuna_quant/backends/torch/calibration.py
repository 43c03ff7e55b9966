"""The calibration of a program: statistics and moments, collected when they are first needed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from optuna_quant._common.bounded_cache import CACHE_BYTES
from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant._common.steps import doing
from optuna_quant.backends.calibration.statistics_bytes import pack
from optuna_quant.backends.calibration.statistics_bytes import unpack
from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.ranges.ranges import scale_zero_point
from optuna_quant.backends.ranges.tensor_range import RANGE_OF_ZEROS
from optuna_quant.backends.torch.candidates.observing import collect_moments
from optuna_quant.backends.torch.candidates.observing import collect_statistics
from optuna_quant.backends.weight_algorithms.moments import InputMoments


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.samples import Samples
    from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.space.config import TensorConfig


_ALL = 1 << 62


class ProgramCalibration:
    """The statistics of a program's activations.

    Args:
        program:
            The program.
        samples:
            The calibration data.
        program_digest:
            The content hash of the program.
        max_bytes:
            The most bytes that moments take.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        samples: Samples,
        program_digest: str,
        *,
        max_bytes: int = CACHE_BYTES,
    ) -> None:
        self._program = program
        self._samples = samples
        self._digest = program_digest
        self._found: dict[int, CalibrationStatistics] = {}
        self._max_bytes = max_bytes
        self._moments = BoundedCache(max_bytes)

    @property
    def is_calibrated(self) -> bool:
        """Whether there is nothing to collect."""
        return self._samples.calibration is None or bool(self._found)

    @property
    def key(self) -> str:
        """A hash of all that the statistics depend on."""
        parts = [self._digest, self._samples.fingerprint, self._sizes()]
        # Kernels of other versions and devices round in another way.
        parts += [torch.__version__, self._program.device.type]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _sizes(self) -> list[int]:
        return [size or _ALL for size in self._samples.passes]

    def collect(self) -> None:
        """Collect the statistics for all sampling sizes, in one pass."""
        if self.is_calibrated:
            return
        assert self._samples.calibration is not None
        with doing("Running the calibration data through the model"):
            self._found = collect_statistics(
                self._program, self._samples.calibration, self._sizes()
            )
        for size, statistics in self._found.items():
            if size != _ALL and statistics.samples < size:
                self._samples.calibration.warn_of_shortage(size, statistics.samples)

    def export(self) -> bytes:
        """What has been collected, for other processes."""
        self.collect()
        return pack(self.key, self._found)

    def restore(self, data: bytes) -> None:
        """Take what another process has exported.

        Raises:
            ValueError:
                If the bytes are damaged or belong to another program or other data.
        """
        self._found = unpack(data, self.key)

    def statistics(self, size: int | None) -> CalibrationStatistics:
        """The statistics for a sampling size."""
        self.collect()
        return self._found[size or _ALL]

    def params(self, tensor: str, config: TensorConfig, size: int | None) -> Params:
        """Scale and zero point of an activation.

        Raises:
            NoRangeError:
                If calibration saw nothing that would give the tensor a range.
        """
        if tensor in self._program.zeros:
            found = RANGE_OF_ZEROS
        else:
            statistics = self.statistics(size)
            found = statistics.range(tensor, config.algorithm, config.dtype, config.scheme)
        scale, zero_point = scale_zero_point(*found, config.dtype, config.scheme)
        return Params(float(scale), int(zero_point), config.dtype)

    def moments(self, op: TorchOp, size: int | None) -> InputMoments:
        """The moments of the inputs of an op, and of others with its weight.

        Ops that read one tensor share them. A pass over the data collects them for this op and
        those behind it, as many as are kept.
        """
        weight = op.shared_weight
        sources = {
            each.sources[0]: each
            for each in reversed(self._program.ops)
            if each is op or (weight and each.shared_weight == weight)
        }
        ops = list(reversed(sources.values()))
        if len(ops) == 1:
            return self._own_moments(ops[0], size)
        found = InputMoments(op.shape[-1] if op.shape else 1)
        for each in ops:
            found.merge(self._own_moments(each, size))
        return found

    def _own_moments(self, op: TorchOp, size: int | None) -> InputMoments:
        assert self._samples.calibration is not None
        key = op.sources[0], size or _ALL
        found: InputMoments | None = self._moments.get(key)
        if found is None:
            collected = self._first_from(op)
            by_tensor = {source: [moments] for source, moments in collected.items()}
            collect_moments(self._program, self._samples.calibration, by_tensor, size or _ALL)
            # Only if the pass has come to its end; what is used next is forgotten last.
            for source, moments in reversed(collected.items()):
                self._moments[source, size or _ALL] = moments
            found = collected[op.sources[0]]
        return found

    def _first_from(self, op: TorchOp) -> dict[str, InputMoments]:
        """Empty moments for an op and those behind it, by the tensor that they read."""
        ops = self._program.ops
        start = ops.index(op)
        found: dict[str, InputMoments] = {}
        nbytes = 0
        for other in (*ops[start:], *ops[:start]):
            if not other.has_groups or not other.sources or other.shape is None:
                continue
            if other.sources[0] in found:
                continue
            moments = InputMoments(other.shape[-1])
            nbytes += moments.nbytes
            if found and nbytes > self._max_bytes:
                break
            found[other.sources[0]] = moments
        return found
