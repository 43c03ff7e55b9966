"""The order of evaluation: samples drawn at random, hard ones more likely first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


_LEVELS = 256

# Keeps the draws apart from those of others who use the same seed, such as who made the data.
_STREAM = 0x6F726465

# The weight of a sample at the part r of the samples by difficulty falls as (r + _SHIFT) ** -2,
# but for a part that is alike for all, up to _ALIKE. With it a candidate that is wrong everywhere
# is found out three to six times as soon: a sample that is seldom drawn counts for so much that
# little can be bet on any. Without it close calls are decided sooner. Many samples make the
# first expensive, and few the second: there a handful of hard samples is all that matters.
_ALIKE = 0.5
_MANY = 10_000
_SHIFT = 0.05


@dataclass(frozen=True, eq=False)
class SampleOrder:
    """An order of the samples, drawn one by one without replacement by known probabilities.

    The probability of each of the samples that are left is its weight over the sum of theirs.
    That the probabilities are known is what makes conclusions from the first samples valid, though
    hard ones tend to come first: each sample counts by one over its probability.

    Args:
        indices:
            The samples' indices in the order of evaluation, of shape ``(samples,)``.
        weights:
            Their weights, in the same order.
    """

    indices: NDArray[np.intp]
    weights: NDArray[np.float64]

    @classmethod
    def draw(cls, levels: NDArray[np.uint8], *, seed: int) -> SampleOrder:
        """Draw an order.

        Drawing one by one by weights gives the same distribution as sorting by exponential
        variables over the weights (Efraimidis and Spirakis, "Weighted random sampling with a
        reservoir", 2006). The weights are a defensive mixture (Hesterberg, "Weighted average
        importance sampling and defensive mixture distributions", 1995): of 10,000 samples the
        hardest is drawn about twenty times as readily as the easiest, of a few hundred up to 400
        times.

        Args:
            levels:
                How hard each sample is, see :func:`difficulty_levels`; all zero for a uniform
                shuffle.
            seed:
                The seed.
        """
        parts = (levels.astype(np.float64) + 0.5) / _LEVELS
        by_difficulty = _SHIFT * (1 + _SHIFT) * (parts + _SHIFT) ** -2  # On average 1.
        alike = _ALIKE * min(1.0, len(levels) / _MANY) ** 2
        weights = alike + (1 - alike) * by_difficulty
        rng = np.random.default_rng([seed, _STREAM])
        waits = -np.log1p(-rng.random(len(levels))) / weights
        indices = np.argsort(waits, kind="stable")
        return cls(indices, weights[indices])

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.indices)

    @cached_property
    def weight_left(self) -> NDArray[np.float64]:
        """The sum of the weights of the samples that were left before each draw."""
        return np.cumsum(self.weights[::-1])[::-1]

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """The probability with which each sample was drawn from those that were left."""
        return np.minimum(self.weights / self.weight_left, 1.0)

    @cached_property
    def digest(self) -> str:
        """What tells this order from others."""
        return hashlib.sha256(self.indices.astype("<i8").tobytes()).hexdigest()[:16]


def difficulty_levels(margins: NDArray[np.float64] | None, samples: int) -> NDArray[np.uint8]:
    """How hard each sample is, from 0 (the hardest) to 255.

    Args:
        margins:
            How far the FP32 model is from deciding each sample otherwise, of shape
            ``(samples,)``; only their order counts. :obj:`None` if that is unknown: then all
            samples are alike.
        samples:
            The number of samples.
    """
    if margins is None:
        return np.zeros(samples, dtype=np.uint8)
    ranks = np.empty(samples, dtype=np.int64)
    ranks[np.argsort(margins, kind="stable")] = np.arange(samples)
    return (ranks * _LEVELS // samples).astype(np.uint8)
