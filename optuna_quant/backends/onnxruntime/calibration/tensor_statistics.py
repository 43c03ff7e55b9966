"""What calibration learnt about the tensors of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import json
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.ranges import ranges
from optuna_quant.backends.onnxruntime.ranges.extremes import SampleExtremes
from optuna_quant.backends.onnxruntime.ranges.histogram import Histogram
from optuna_quant.backends.onnxruntime.ranges.tensor_range import NoRangeError
from optuna_quant.backends.onnxruntime.ranges.tensor_range import range_problem


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CalibrationStatistics:
    """What calibration learnt about a model's tensors.

    Args:
        histograms:
            Histogram of each tensor. Tensors that are not floating-point have none.
        samples:
            Number of calibration samples seen.
        unusable:
            Why a tensor has no range, as a sentence, where it holds NaN or infinities.
        extremes:
            The extremes of the samples of each tensor with a histogram.
    """

    histograms: Mapping[str, Histogram]
    samples: int
    unusable: Mapping[str, str] = field(default_factory=dict)
    extremes: Mapping[str, SampleExtremes] = field(default_factory=dict)
    _ranges: dict[tuple[object, ...], tuple[float, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def histogram(self, tensor: str) -> Histogram:
        """Return the histogram of a tensor.

        Raises:
            KeyError:
                If the tensor was not calibrated, or is not floating-point.
            NoRangeError:
                If it holds NaN or infinities.
        """
        if tensor in self.unusable:
            raise NoRangeError(tensor, self.unusable[tensor])
        if tensor not in self.histograms:
            raise KeyError(
                f"There are no calibration statistics for tensor {tensor!r}: it was not requested "
                "or is not floating-point."
            )
        return self.histograms[tensor]

    def problem(self, tensor: str) -> str | None:
        """Why a tensor has no range, as a sentence; None if it has one.

        Raises:
            KeyError:
                As :meth:`histogram`.
        """
        if tensor in self.unusable:
            return self.unusable[tensor]
        return range_problem(tensor, self.histogram(tensor))

    def range(
        self,
        tensor: str,
        algorithm: str,
        dtype: str,
        scheme: str,
        *,
        percentile: float = ranges.DEFAULT_PERCENTILE,
    ) -> tuple[float, float]:
        """Return a tensor's range ``(rmin, rmax)``; computed once, then remembered.

        See :func:`~optuna_quant.backends.onnxruntime.ranges.ranges.compute_range` for the
        arguments.

        Raises:
            KeyError:
                As :meth:`histogram`.
            NoRangeError:
                If calibration saw nothing that would give the tensor a range.
            ValueError:
                As :func:`~optuna_quant.backends.onnxruntime.ranges.ranges.compute_range`.
        """
        problem = self.problem(tensor)
        if problem is not None:
            raise NoRangeError(tensor, problem)
        key = (tensor, algorithm, dtype, scheme, percentile)
        if key not in self._ranges:
            self._ranges[key] = ranges.compute_range(
                self.histogram(tensor),
                algorithm,
                dtype,
                scheme,
                percentile=percentile,
                extremes=self.extremes.get(tensor),
            )
        return self._ranges[key]


def unusable_to_arrays(unusable: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Why tensors have no range, as arrays; none if all have one."""
    if not unusable:
        return {}
    return {"unusable": np.frombuffer(json.dumps(dict(unusable)).encode(), dtype=np.uint8)}


def unusable_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Inverse of :func:`unusable_to_arrays`."""
    if "unusable" not in arrays:
        return {}
    return {str(name): str(why) for name, why in json.loads(arrays["unusable"].tobytes()).items()}
