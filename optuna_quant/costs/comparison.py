"""The comparison of two models: time, size, outputs, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import math
from pathlib import PurePath
import statistics
from typing import Any

from optuna_quant._common.notebook_table import notebook_table
from optuna_quant.costs.timing import Timing


RANDOM_INPUTS = "random inputs"
"""Where inputs came from if there are no data."""

_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Ratio:
    """The ratio of two times, with an interval.

    Args:
        value:
            The median over the rounds.
        low:
            The lower end of its 95% confidence interval.
        high:
            The upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether one of the two is faster for all that the measurement says."""
        return not self.low <= 1.0 <= self.high


@dataclass(frozen=True)
class ModelFigures:
    """The measurements of one model.

    Args:
        name:
            What it is called, a path for instance.
        nbytes:
            Its size, external data included.
        seconds:
            The median time of a run.
        spread:
            The standard deviation of the time of a run.
        metric:
            Its metric; :obj:`None` without data.
    """

    name: str
    nbytes: int
    seconds: float
    spread: float
    metric: float | None = None


@dataclass(frozen=True)
class OutputAgreement:
    """How closely one output of two models agrees.

    Args:
        name:
            Its name in the first model.
        relative_error:
            The norm of the difference over the norm of the first model's; :obj:`None` for outputs
            that are no numbers or have different shapes.
        agreement:
            The share of positions at which the same class has the highest score; :obj:`None` for
            outputs that are no scores of classes.
    """

    name: str
    relative_error: float | None
    agreement: float | None


@dataclass(frozen=True, repr=False)
class Comparison:
    """The comparison of two models.

    Args:
        first:
            The first model, often FP32.
        second:
            The second one.
        ratio:
            The second one's time over the first one's.
        outputs:
            How far the outputs agree.
        metric:
            The metric's name; :obj:`None` without data.
        higher_is_better:
            Whether more of the metric is better.
        batch:
            How many samples a run had.
        threads:
            The threads of a run; 0 for all cores.
        rounds:
            How often each model was measured.
        samples:
            On how many samples the outputs were compared.
        inputs:
            Where the inputs came from.
    """

    first: ModelFigures
    second: ModelFigures
    ratio: Ratio
    outputs: tuple[OutputAgreement, ...]
    metric: str | None
    higher_is_better: bool | None
    batch: int
    threads: int
    rounds: int
    samples: int
    inputs: str

    def to_dict(self) -> dict[str, Any]:
        """The figures in types that JSON has."""
        stored = asdict(self)
        stored["outputs"] = [asdict(output) for output in self.outputs]
        return stored

    def summary(self) -> str:
        """The comparison in a few lines of text."""
        return "\n".join(self._lines())

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        rows = [line.partition(" ") for line in self._lines()]
        return notebook_table("", [(name, text.strip()) for name, _, text in rows])

    def _lines(self) -> list[str]:
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        first, second = self.first, self.second
        names = _short_names(first.name, second.name)
        lines = [
            f"time    {names[1]} {_shown_seconds(second)}, {names[0]} {_shown_seconds(first)}: "
            f"{self._shown_ratio()} (batch {self.batch}, "
            f"{threads if self.threads else 'all cores'}, {self.rounds} rounds, {self.inputs})",
            f"size    {names[1]} {_shown_bytes(second.nbytes)}, "
            f"{names[0]} {_shown_bytes(first.nbytes)}: "
            f"{second.nbytes / first.nbytes:.3g} times the size",
        ]
        outputs = self.outputs
        if self.inputs == RANDOM_INPUTS and any(output.relative_error for output in outputs):
            lines.append(
                "output  not compared: on random inputs models differ more than on real ones; "
                "give data or calibration_data (--data, --calibration)"
            )
            outputs = ()
        for output in outputs:
            told = []
            if output.agreement is not None:
                told.append(f"the same class at {100 * output.agreement:.4g}% of the positions")
            if output.relative_error is None:
                told.append("cannot be compared")
            else:
                told.append(f"relative error {output.relative_error:.3g}")
            lines.append(f"output  {output.name}: {', '.join(told)} ({_samples(self.samples)})")
        if first.metric is not None and second.metric is not None:
            change = second.metric - first.metric
            lines.append(
                f"metric  {self.metric} {second.metric:.6g} against {first.metric:.6g} "
                f"({change:+.3g})"
            )
        return lines

    def _shown_ratio(self) -> str:
        ratio = self.ratio
        interval = (
            f"{ratio.value:.3g} of the time, 95% interval {ratio.low:.3g} to {ratio.high:.3g}"
        )
        if not ratio.is_clear:
            return f"no difference beyond noise ({interval})"
        if ratio.value < 1:
            return f"{1 / ratio.value:.3g} times faster ({interval})"
        return f"{ratio.value:.3g} times slower ({interval})"


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def time_ratio(first: Timing, second: Timing) -> Ratio:
    """The ratio of two times that were measured in turn.

    It is the median of the ratios of the rounds, in each of which both met the same machine; its
    interval is that of the order statistics, which assumes nothing of how times are distributed.

    Args:
        first:
            The time of the denominator.
        second:
            That of the numerator.

    Raises:
        ValueError:
            If they have no rounds, or not the same number.
    """
    if len(first.runs) != len(second.runs) or not first.runs:
        raise ValueError(
            f"The times were measured in {len(first.runs)} and {len(second.runs)} rounds; both "
            "must be measured in the same rounds, at least one."
        )
    pairs = zip(first.runs, second.runs, strict=True)
    ratios = sorted(b / a for a, b in pairs if a > 0) or [math.nan]
    low, high = _median_interval(ratios)
    return Ratio(statistics.median(ratios), low, high)


def _median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    count = len(ordered)
    reach = _NORMAL_95 * math.sqrt(count) / 2
    low = max(0, math.floor((count - 1) / 2 - reach))
    return ordered[low], ordered[count - 1 - low]


def _short_names(first: str, second: str) -> tuple[str, str]:
    """The names of the files, without folders where they differ without them."""
    short = PurePath(first).name, PurePath(second).name
    return (first, second) if short[0] == short[1] else short


def _shown_seconds(figures: ModelFigures) -> str:
    unit, one = next(
        ((name, size) for name, size in (("s", 1.0), ("ms", 1e-3)) if figures.seconds >= size),
        ("us", 1e-6),
    )
    return f"{figures.seconds / one:.3g} {unit} (+/- {figures.spread / one:.2g})"


def _shown_bytes(size: int) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size} bytes"
