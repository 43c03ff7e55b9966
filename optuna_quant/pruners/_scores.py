"""Scores between two bounds, as a test takes them: in [0, 1], and higher is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.criteria import ROUNDING


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion


@dataclass(frozen=True)
class UnitScores:
    """Scales scores of any metric to [0, 1] such that higher is better, and back.

    Args:
        low:
            The lowest score of a sample.
        high:
            The highest.
        higher_is_better:
            Whether that is the best one.
    """

    low: float
    high: float
    higher_is_better: bool

    def of(self, value: float) -> float:
        """A score or a mean, scaled."""
        better = value - self.low if self.higher_is_better else self.high - value
        return better / (self.high - self.low)

    def of_report(self, mean: float, step: int, number: int) -> float:
        """A mean that a trial has reported, scaled.

        Args:
            mean:
                The mean.
            step:
                At which step.
            number:
                The number of the trial.

        Raises:
            ValueError:
                If it is out of the bounds.
        """
        low, high = self.low, self.high
        rounding = ROUNDING * max(1.0, abs(low), abs(high))
        if not low - rounding <= mean <= high + rounding:
            raise ValueError(
                f"Trial {number} reported {mean} at step {step}, which is not between the bounds "
                f"{low:g} and {high:g}: report the mean of the scores of all samples so far, and "
                "give AccuracyPruner the worst and the best score that a sample can have, as "
                "bounds=(worst, best)."
            )
        return min(max(self.of(mean), 0.0), 1.0)

    def value_of(self, scaled: float) -> float:
        """What a scaled score or mean stands for, within the bounds."""
        better = scaled * (self.high - self.low)
        value = self.low + better if self.higher_is_better else self.high - better
        return min(max(value, self.low), self.high)

    def best_outcome(self, mean: float, step: int, size: int) -> float:
        """The mean over ``size`` samples if all after ``step`` have the best score."""
        best = self.high if self.higher_is_better else self.low
        return (mean * step + best * (size - step)) / size

    def threshold(self, criterion: AccuracyCriterion, baseline: float) -> float:
        """The lowest mean that meets a criterion; lower by what it takes for rounding."""
        threshold = criterion.threshold(baseline)
        rounding = 2 * ROUNDING * max(abs(threshold), abs(baseline))
        return self.of(threshold) - rounding / (self.high - self.low)
