"""What a quantized model is worth: its time and size against those of the FP32 model."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import math
import statistics
import time

from optuna_quant.costs.objective import shown_seconds
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.space.left_out import shown_bytes


_ROUNDS = 40
_FEWEST_ROUNDS = 5
_WARMUP = 2
_SD_OF_MAD = 1.4826
_SD_OF_MEDIAN = 1.2533
# Twice the standard error; and whoever measures shorter than that is fooled by other things.
_NOISE_ERRORS = 2.0
_LEAST_NOISE = 0.01


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a quantized model takes, and what the FP32 model takes, measured in turn.

    Args:
        seconds:
            The median seconds of a run of the quantized model; :obj:`None` if not measured.
        fp32_seconds:
            Those of the FP32 model.
        noise:
            By how many seconds the two may differ by chance: twice the standard error of the
            median of the differences of runs side by side, and at least 1% of the time.
        nbytes:
            The bytes of the quantized model; :obj:`None` if not known.
        fp32_bytes:
            Those of the FP32 model.
        batch:
            The number of samples in a run.
        threads:
            The threads of a run; :obj:`None` if not known.
        runs:
            How often each model was run.
    """

    seconds: float | None = None
    fp32_seconds: float | None = None
    noise: float | None = None
    nbytes: int | None = None
    fp32_bytes: int | None = None
    batch: int | None = None
    threads: int | None = None
    runs: int = 0

    @property
    def ratio(self) -> float | None:
        """The time of the quantized model over that of FP32; :obj:`None` if not measured."""
        if self.seconds is None or not self.fp32_seconds:
            return None
        return self.seconds / self.fp32_seconds

    @property
    def size_ratio(self) -> float | None:
        """The bytes of the quantized model over those of FP32; :obj:`None` if not known."""
        if self.nbytes is None or not self.fp32_bytes:
            return None
        return self.nbytes / self.fp32_bytes

    @property
    def is_faster(self) -> bool | None:
        """Whether it is faster than FP32 by more than noise; :obj:`None` if not measured."""
        if self.seconds is None or self.fp32_seconds is None:
            return None
        return self.fp32_seconds - self.seconds > (self.noise or 0.0)

    @property
    def is_smaller(self) -> bool | None:
        """Whether it is smaller than FP32; :obj:`None` if that is not known."""
        if self.nbytes is None or self.fp32_bytes is None:
            return None
        return self.nbytes < self.fp32_bytes

    def __str__(self) -> str:
        parts = []
        if self.seconds is not None and self.fp32_seconds is not None:
            parts.append(
                f"{shown_seconds(self.seconds)} against FP32 {shown_seconds(self.fp32_seconds)} "
                f"({self._compared()}){self._conditions()}"
            )
        if self.nbytes is not None and self.fp32_bytes is not None:
            fp32 = "" if parts else "FP32 "
            parts.append(
                f"{shown_bytes(self.nbytes)} against {fp32}{shown_bytes(self.fp32_bytes)}"
            )
        return "; ".join(parts)

    def _compared(self) -> str:
        ratio = self.ratio
        assert ratio is not None and self.seconds is not None and self.fp32_seconds is not None
        if abs(self.seconds - self.fp32_seconds) <= (self.noise or 0.0):
            return "no difference beyond noise"
        if ratio > 1:
            return (
                f"{ratio:.2g} times slower" if ratio >= 1.1 else f"{100 * ratio - 100:.0f}% slower"
            )
        faster = 1 / ratio
        return (
            f"{faster:.2g} times faster" if faster >= 1.1 else f"{100 - 100 * ratio:.0f}% faster"
        )

    def _conditions(self) -> str:
        parts = []
        if self.batch is not None:
            parts.append(f"batch {self.batch}")
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'' if self.threads == 1 else 's'}")
        return "".join(f", {part}" for part in parts)


@dataclass(frozen=True)
class Measured:
    """The times of several models and of FP32.

    Args:
        fp32_seconds:
            The median seconds of the FP32 model.
        seconds:
            Those of each other one.
        noise:
            By how many seconds each may differ from FP32 by chance.
        runs:
            How often each was run.
    """

    fp32_seconds: float
    seconds: Sequence[float]
    noise: Sequence[float]
    runs: int


def measure_against(
    fp32: Callable[[], object],
    others: Sequence[Callable[[], object]],
    *,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Measure models side by side with the FP32 model.

    Args:
        fp32:
            Runs the FP32 model.
        others:
            Run the other ones.
        seconds:
            About how long it may take; a few rounds are made in any case.
        clock:
            Gives the time in seconds.
    """
    timings = time_interleaved(
        [fp32, *others],
        rounds=_ROUNDS,
        warmup=_WARMUP,
        seconds=seconds,
        fewest=_FEWEST_ROUNDS,
        clock=clock,
    )
    reference = timings[0]
    noise = [
        max(
            _NOISE_ERRORS * _error_of_difference(reference.runs, each.runs),
            _LEAST_NOISE * reference.seconds,
        )
        for each in timings[1:]
    ]
    found = [each.seconds for each in timings[1:]]
    return Measured(reference.seconds, found, noise, len(reference.runs))


def _error_of_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The standard error of the median of the differences of runs in the same round."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    middle = statistics.median(differences)
    deviation = statistics.median(abs(each - middle) for each in differences)
    return _SD_OF_MEDIAN * _SD_OF_MAD * deviation / math.sqrt(len(differences))
