"""The calibration of a program: statistics and moments, collected when they are first needed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.calibration.statistics_bytes import pack
from optuna_quant.backends.calibration.statistics_bytes import unpack
from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.ranges.ranges import scale_zero_point
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
    """

    def __init__(self, program: SwitchedProgram, samples: Samples, program_digest: str) -> None:
        self._program = program
        self._samples = samples
        self._digest = program_digest
        self._found: dict[int, CalibrationStatistics] = {}
        self._moments: dict[tuple[str, int], InputMoments] = {}

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
        self._found = collect_statistics(self._program, self._samples.calibration, self._sizes())
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
        found = self.statistics(size).range(tensor, config.algorithm, config.dtype, config.scheme)
        scale, zero_point = scale_zero_point(*found, config.dtype, config.scheme)
        return Params(float(scale), int(zero_point), config.dtype)

    def moments(self, op: TorchOp, size: int | None) -> InputMoments:
        """The moments of an op's inputs; those of all Linear ops are collected in one pass."""
        assert self._samples.calibration is not None
        key = op.name, size or _ALL
        if key not in self._moments:
            by_tensor: dict[str, list[InputMoments]] = {}
            collected: dict[tuple[str, int], InputMoments] = {}
            for other in self._program.ops:
                if other.has_groups and other.sources and other.shape is not None:
                    found = InputMoments(other.shape[-1])
                    collected[other.name, size or _ALL] = found
                    by_tensor.setdefault(other.sources[0], []).append(found)
            collect_moments(self._program, self._samples.calibration, by_tensor, size or _ALL)
            self._moments.update(collected)  # Only if the pass has come to its end.
        return self._moments[key]
