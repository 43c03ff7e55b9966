"""Infer from a metric's values by how much one sample changes it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
import math


# Of a count over so many samples floats keep the fraction; of other numbers hardly any is one.
_MOST_SAMPLES = 10_000
_ROUNDING = 1e-12
# Fractions that have no smaller denominator in common are no counts of the same samples.
_MOST_STEPS = 100_000


def metric_step(values: Sequence[float]) -> float:
    """The largest step of which all values are multiples: one sample, where samples are counted.

    The values of such a metric, as an accuracy, are fractions with the number of samples below, so
    they tell it. That is the only way to know how much chance is in a metric of which one number
    per model is known.

    Args:
        values:
            Values of one metric, on the same samples.

    Returns:
        The step; 0 if the values are not such fractions.
    """
    steps = 1
    for value in values:
        found = _count(value)
        if abs(float(found) - value) > _ROUNDING * max(1.0, abs(value)):
            return 0.0
        steps = math.lcm(steps, found.denominator)
        if steps > _MOST_STEPS:
            return 0.0
    # Of whole numbers alone nothing is known: a perfect score is one, whatever the samples.
    return 1.0 / steps if steps > 1 else 0.0


@lru_cache(maxsize=4096)  # The same values are asked for after each trial.
def _count(value: float) -> Fraction:
    """The fraction next to a value that is a count of samples, perhaps."""
    return Fraction(value).limit_denominator(_MOST_SAMPLES)
