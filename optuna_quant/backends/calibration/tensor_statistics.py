"""What calibration learns about a model's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import json
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.calibration.channel_means import means_from_arrays
from optuna_quant.backends.calibration.channel_means import means_to_arrays
from optuna_quant.backends.ranges import ranges
from optuna_quant.backends.ranges.extremes import extremes_from_arrays
from optuna_quant.backends.ranges.extremes import extremes_to_arrays
from optuna_quant.backends.ranges.histogram import histograms_from_arrays
from optuna_quant.backends.ranges.histogram import histograms_to_arrays
from optuna_quant.backends.ranges.tensor_range import NoRangeError
from optuna_quant.backends.ranges.tensor_range import range_problem


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.channel_means import Means
    from optuna_quant.backends.ranges.extremes import SampleExtremes
    from optuna_quant.backends.ranges.histogram import Histogram


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
        means:
            The means of channels, of the tensors with a histogram for which they were wanted.
        faults:
            For which calibration samples such a tensor did so first, in words; those that hold
            nothing but a mask of -inf have no fault.
    """

    histograms: Mapping[str, Histogram]
    samples: int
    unusable: Mapping[str, str] = field(default_factory=dict)
    extremes: Mapping[str, SampleExtremes] = field(default_factory=dict)
    means: Means = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
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
            raise NoRangeError(tensor, self.unusable[tensor], self.faults.get(tensor, ""))
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

        See :func:`~optuna_quant.backends.ranges.ranges.compute_range` for the
        arguments.

        Raises:
            KeyError:
                As :meth:`histogram`.
            NoRangeError:
                If calibration saw nothing that would give the tensor a range.
            ValueError:
                As :func:`~optuna_quant.backends.ranges.ranges.compute_range`.
        """
        problem = self.problem(tensor)
        if problem is not None:
            raise NoRangeError(tensor, problem, self.faults.get(tensor, ""))
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

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All but the number of samples as plain arrays, as :func:`numpy.savez` takes them."""
        found = {
            **histograms_to_arrays(self.histograms),
            **extremes_to_arrays(self.extremes),
            **means_to_arrays(self.means),
        }
        for name, texts in (("unusable", self.unusable), ("faults", self.faults)):
            if texts:
                text = json.dumps(dict(texts))
                found[name] = np.frombuffer(text.encode(), dtype=np.uint8)
        return found

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], samples: int
    ) -> CalibrationStatistics:
        """Inverse of :meth:`to_arrays`.

        Raises:
            KeyError:
                If an array is missing.
            ValueError:
                If one holds something else.
        """
        return cls(
            histograms_from_arrays(arrays),
            samples,
            _texts(arrays, "unusable"),
            extremes_from_arrays(arrays),
            means_from_arrays(arrays),
            _texts(arrays, "faults"),
        )


def _texts(arrays: Mapping[str, NDArray[Any]], key: str) -> dict[str, str]:
    """Texts by tensor, which :meth:`CalibrationStatistics.to_arrays` has kept under a name."""
    found = json.loads(arrays[key].tobytes()) if key in arrays else {}
    return {str(name): str(text) for name, text in found.items()}
