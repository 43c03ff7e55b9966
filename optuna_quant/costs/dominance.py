"""The front of two minimized objectives, its hypervolume, and what a point adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


Point = tuple[float, float]
"""A cost and a loss, the smaller the better."""


def non_dominated(points: Sequence[Point]) -> list[int]:
    """Which points no other beats.

    One point beats another if it is no worse in both and better in one. Equal points do not beat
    each other.

    Args:
        points:
            The points; one with a NaN is beaten by definition.

    Returns:
        The positions of those that are left, by the first value and then by their position.
    """
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    found: list[int] = []
    last: Point | None = None
    for i in sorted(known, key=lambda i: (*points[i], i)):
        if last is None or points[i][1] < last[1] or points[i] == last:
            found.append(i)
            last = points[i]
    return found


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that is beaten by the points, up to a reference point.

    E. Zitzler and L. Thiele, "Multiobjective optimization using evolutionary algorithms: a
    comparative case study", 1998.

    Args:
        points:
            The points; those that are not better than the reference in both values add nothing.
        reference:
            The corner of the area: its largest values.
    """
    return Staircase.of(points, reference).area


@dataclass(frozen=True, eq=False)
class Staircase:
    """The boundary of what a set of points beats, up to a reference point.

    Args:
        costs:
            Where the steps begin, ascending, of shape ``(steps,)``.
        losses:
            The smallest loss that is known at this cost, of shape ``(steps,)``; descending.
        reference:
            The reference point.
    """

    costs: NDArray[np.float64]
    losses: NDArray[np.float64]
    reference: Point

    @classmethod
    def of(cls, points: Sequence[Point], reference: Point) -> Staircase:
        """The staircase of any points.

        Args:
            points:
                The points.
            reference:
                The largest values that are of interest.
        """
        inside = [p for p in points if p[0] < reference[0] and p[1] < reference[1]]
        steps = [inside[i] for i in non_dominated(inside)]
        costs, losses = np.array([*steps, reference], dtype=np.float64).T[:, : len(steps)]
        return cls(costs, losses, reference)

    @property
    def area(self) -> float:
        """The area that the points beat."""
        ends = np.append(self.costs[1:], self.reference[0]) if len(self.costs) else self.costs
        return float(((ends - self.costs) * (self.reference[1] - self.losses)).sum())

    def gain(self, cost: float, loss: float) -> float:
        """By how much a point makes the area larger.

        Args:
            cost:
                Its cost.
            loss:
                Its loss.
        """
        widths, bounds = self._steps(cost)
        return float((widths * np.maximum(bounds - loss, 0.0)).sum())

    def expected_gain(self, cost: float, median: float, deviation: float) -> float:
        """By how much a point whose loss is not known makes the area larger, in the mean.

        That is the expected hypervolume improvement (M. Emmerich, K. Giannakoglou and B. Naujoks,
        "Single- and multiobjective evolutionary optimization assisted by Gaussian random field
        metamodels", 2006). Where one objective is known exactly it is a sum over the steps beside
        which the point stands: the width of each times the expected amount by which the loss is
        below it, which of a log-normal variable is known in closed form.

        Args:
            cost:
                Its cost.
            median:
                The median of its loss, which is log-normal.
            deviation:
                The standard deviation of the logarithm of its loss.
        """
        if median <= 0 or deviation < 1e-9:
            return self.gain(cost, median)
        widths, bounds = self._steps(cost)
        center, mean = math.log(median), median * math.exp(min(0.5 * deviation**2, 300.0))
        total = 0.0
        for width, bound in zip(widths.tolist(), bounds.tolist(), strict=True):
            if bound > 0:
                z = (math.log(bound) - center) / deviation
                below = bound * _normal_cdf(z) - mean * _normal_cdf(z - deviation)
                total += width * max(below, 0.0)
        return total

    def _steps(self, cost: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The width of each step beside a point of this cost, and the loss that bounds it."""
        most_cost, most_loss = self.reference
        if not cost < most_cost:
            return np.empty(0), np.empty(0)
        edges = np.append(self.costs, most_cost)
        starts = np.concatenate([[cost], self.costs])
        widths = np.maximum(edges - np.maximum(starts, cost), 0.0)
        return widths, np.concatenate([[most_loss], self.losses])


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
