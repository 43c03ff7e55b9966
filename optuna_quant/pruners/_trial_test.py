"""The test of one trial against the baseline, and the reports that went into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optuna_quant.sequential.uniform_threshold import PartialSum
from optuna_quant.sequential.uniform_threshold import UniformThresholdTest


_INEXACT = 1e-6
"""How far a reported mean may be off, over the width of the bounds: float32, but not rounded."""


@dataclass(frozen=True)
class Reference:
    """What the baseline has reported.

    Args:
        size:
            The number of samples.
        mean:
            The mean of its scores; :obj:`None` if there is nothing to pair with.
        totals:
            The sum of its scores after each step.
    """

    size: int
    mean: float | None
    totals: Mapping[int, float]


class TrialTest:
    """A test, and the reports that went into it."""

    def __init__(self, reference: Reference, threshold: float) -> None:
        self._reference = reference
        self._threshold = threshold
        self._test = UniformThresholdTest(reference.size, threshold, baseline=reference.mean)
        self.reports: list[tuple[int, float]] = []
        self.history: list[PartialSum] = []

    def is_of(
        self, reports: list[tuple[int, float]], reference: Reference, threshold: float
    ) -> bool:
        """Whether the test is of the same question, and has seen no other reports than these."""
        return (
            self._threshold == threshold
            and self._reference == reference
            and self.reports == reports[: len(self.reports)]
        )

    def add(self, step: int, value: float, mean: float, number: int) -> None:
        total = mean * step
        last, before = (
            (self.history[-1].samples, self.history[-1].total) if self.history else (0, 0)
        )
        count = step - last
        if not -_INEXACT * step <= total - before <= count + _INEXACT * step:
            raise ValueError(
                f"Trial {number} reported {value} at step {step}, which no scores of the "
                f"{count} samples since step {last} can lead to: report the mean of the scores "
                "of all samples so far, not rounded and not that of the last batch, with "
                "step=the number of samples so far."
            )
        seen = PartialSum(step, total, self._reference.totals.get(step))
        self._test.update(*seen)
        self.history.append(seen)
        self.reports.append((step, value))

    def rejects(self, error_probability: float) -> bool:
        return bool(self._test.rejects(error_probability))
