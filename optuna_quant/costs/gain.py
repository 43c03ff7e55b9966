"""The gain of a quantized model: its time and size compared with FP32."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import time

from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.comparison import time_ratio
from optuna_quant.costs.objective import shown_seconds
from optuna_quant.costs.timing import Timing
from optuna_quant.costs.timing import summarize
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.space.left_out import shown_bytes


# A model of 0.1 ms is through in less than 0.1 s, of which something else may take a part.
_ROUNDS = 400
_FEWEST_ROUNDS = 5
_LONGER = 4
# Two halves of fewer rounds say too little to disagree.
_ROUNDS_OF_HALVES = 12
_WARMUP = 2
# Other things hide a smaller difference.
_LEAST_NOISE = 0.01
# An interval from one end to the other that is said.
_WIDE = 1.1
# A model that may be faster by more than this part is not known to be no faster.
_MAY_BE_FASTER = 0.05


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The time and size of a quantized model and of FP32, measured in turn.

    Args:
        seconds:
            The seconds of a run of the quantized model: those of the FP32 model times
            ``time_ratio``; :obj:`None` if not measured.
        fp32_seconds:
            The median seconds of a run of the FP32 model.
        time_ratio:
            How many times as long as FP32 it takes, by runs side by side, with a 95% interval
            that reaches at least 1% to both sides.
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
        inputs:
            The shape of the input whose size the model leaves open, such as ``input_ids 1x22``;
            empty if there is none.
    """

    seconds: float | None = None
    fp32_seconds: float | None = None
    time_ratio: Ratio | None = None
    nbytes: int | None = None
    fp32_bytes: int | None = None
    batch: int | None = None
    threads: int | None = None
    runs: int = 0
    inputs: str = ""

    @property
    def ratio(self) -> float | None:
        """The time of the quantized model over that of FP32; :obj:`None` if not measured."""
        return None if self.time_ratio is None else self.time_ratio.value

    @property
    def size_ratio(self) -> float | None:
        """The bytes of the quantized model over those of FP32; :obj:`None` if not known."""
        if self.nbytes is None or not self.fp32_bytes:
            return None
        return self.nbytes / self.fp32_bytes

    @property
    def is_faster(self) -> bool | None:
        """Whether it is faster than FP32 by more than noise.

        :obj:`None` if that was not measured, or so inexactly that it may as well be slower as
        faster by more than 5%.
        """
        ratio = self.time_ratio
        if ratio is None or (not ratio.is_clear and ratio.low < 1 - _MAY_BE_FASTER):
            return None
        return ratio.is_clear and ratio.value < 1

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
        found = self.time_ratio
        if found is None:
            return "not compared"
        interval = ""
        if found.high > _WIDE * found.low:
            interval = f", 95% interval {found.low:.2g} to {found.high:.2g} of its time"
        assert self.seconds is not None and self.fp32_seconds is not None
        if not found.is_clear:
            fits = found.low <= self.seconds / self.fp32_seconds <= found.high
            return f"no difference beyond noise{'' if fits else ' in paired runs'}{interval}"
        shown = shown_ratio(found.value)
        # In studies of before: where the machine was busy the two differ.
        if shown != shown_ratio(self.seconds / self.fp32_seconds):
            shown = f"{shown} in the median of paired runs"
        return f"{shown}{interval}"

    def _conditions(self) -> str:
        parts = []
        if self.batch is not None:
            parts.append(f"batch {self.batch}")
        if self.inputs:
            parts.append(self.inputs)
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'' if self.threads == 1 else 's'}")
        return "".join(f", {part}" for part in parts)


def shown_ratio(ratio: float) -> str:
    """A ratio of times to that of FP32, in words: 1.5 times faster, 2% slower.

    Args:
        ratio:
            The time, as a part of that of the FP32 model.
    """
    if ratio > 1:
        by = f"{ratio:.2g} times" if ratio >= 1.1 else f"{100 * ratio - 100:.0f}%"
        return f"{by} slower"
    by = f"{1 / ratio:.2g} times" if 1 / ratio >= 1.1 else f"{100 - 100 * ratio:.0f}%"
    return f"{by} faster"


@dataclass(frozen=True)
class Measured:
    """The times of several models and of FP32.

    Args:
        fp32_seconds:
            The median seconds of the FP32 model.
        seconds:
            Those of each other one: of the FP32 model times the ratio. The median of its own runs
            would not fit the ratio where the machine was busy for a while.
        ratios:
            How many times as long as FP32 each takes.
        runs:
            How often each was run.
    """

    fp32_seconds: float
    seconds: Sequence[float]
    ratios: Sequence[Ratio]
    runs: int


def measure_against(
    fp32: Callable[[], object],
    others: Sequence[Callable[[], object]],
    *,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Measure models side by side with the FP32 model.

    If the two halves of a measurement contradict each other, it is made again, longer; if they
    still do, the interval has what both of them say.

    Args:
        fp32:
            Runs the FP32 model.
        others:
            Run the other ones.
        seconds:
            About how long a measurement may take, at most; a few rounds are made in any case.
        clock:
            Gives the time in seconds.
    """
    measure = partial(
        time_interleaved, [fp32, *others], warmup=_WARMUP, fewest=_FEWEST_ROUNDS, clock=clock
    )
    timings = measure(rounds=_ROUNDS, seconds=seconds)
    if any(_halves_disagree(timings[0], each) for each in timings[1:]):
        timings = measure(rounds=_LONGER * _ROUNDS, seconds=_LONGER * seconds)
    reference, *rest = timings
    ratios = [_ratio(reference, each) for each in rest]
    others_seconds = [reference.seconds * ratio.value for ratio in ratios]
    return Measured(reference.seconds, others_seconds, ratios, len(reference.runs))


def _ratio(reference: Timing, other: Timing) -> Ratio:
    """The ratio with an interval that has what both halves say, and is not too narrow."""
    whole = time_ratio(reference, other)
    parts = [whole]
    if _halves_disagree(reference, other):
        parts += _halves(reference, other)
    low = min(whole.value - _LEAST_NOISE, *(part.low for part in parts))
    high = max(whole.value + _LEAST_NOISE, *(part.high for part in parts))
    return Ratio(whole.value, low, high)


def _halves_disagree(reference: Timing, other: Timing) -> bool:
    if len(reference.runs) < _ROUNDS_OF_HALVES:
        return False
    one, two = _halves(reference, other)
    apart = max(one.low, two.low) - min(one.high, two.high)
    return apart > _LEAST_NOISE


def _halves(reference: Timing, other: Timing) -> list[Ratio]:
    half = len(reference.runs) // 2
    return [
        time_ratio(*summarize([reference.runs[part], other.runs[part]]))
        for part in (slice(half), slice(half, None))
    ]
