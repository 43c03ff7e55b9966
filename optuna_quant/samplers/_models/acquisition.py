"""Maximize the acquisition function over choices, by local search over single changes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from optuna_quant.samplers._models import gp


Point: TypeAlias = tuple[int, ...]

_SMALLEST_GAIN = 1e-6


class Acquisition:
    """The logarithm of the expected improvement over points that may be proposed.

    Args:
        posterior:
            The Gaussian process.
        best:
            The value to improve on.
        choices:
            The choices of all parameters.
        allowed:
            The positions of the choices that may be proposed, for each parameter.
        is_free:
            Whether a point may be proposed, as far as the record goes.
    """

    def __init__(
        self,
        posterior: gp.Posterior,
        best: float,
        choices: gp.Choices,
        allowed: Sequence[Sequence[int]],
        is_free: Callable[[Point], bool],
    ) -> None:
        self._posterior = posterior
        self._best = best
        self._choices = choices
        columns = [
            start + position
            for start, positions in zip(choices.starts, allowed, strict=True)
            for position in positions
        ]
        self._columns = np.asarray(columns, dtype=np.int64)
        self._is_free = is_free

    def maximize(self, starts: Iterable[Point], *, climbs: int) -> Point | None:
        """The free point with the highest value that local search finds.

        From each start the best change is looked up; the climbs go on from the most promising.

        Args:
            starts:
                Where to begin, free or not.
            climbs:
                The number of starts to climb from.

        Returns:
            The point, or :obj:`None` if every point that was looked at is taken.
        """
        started = [self._step(start, -np.inf) for start in dict.fromkeys(starts)]
        found = [step for step in started if step is not None]
        found.sort(key=lambda step: -step[1])
        best: tuple[Point, float] | None = None
        for step in found[:climbs]:
            reached = self._climb(*step)
            if best is None or reached[1] > best[1]:
                best = reached
        return None if best is None else best[0]

    def _climb(self, point: Point, value: float) -> tuple[Point, float]:
        while (step := self._step(point, value + _SMALLEST_GAIN)) is not None:
            point, value = step
        return point, value

    def _step(self, point: Point, value: float) -> tuple[Point, float] | None:
        """A free point near ``point`` that is better than ``value``.

        Either the best single change, or the best two, four, eight, ... together: as far as the
        changes add up, that saves most of the steps.
        """
        current = np.asarray(point, dtype=np.int64)
        columns = self._columns
        columns = columns[
            columns != (self._choices.starts + current)[self._choices.owner[columns]]
        ]
        if not len(columns):
            return None
        gains = self._value(*self._posterior.predict_changes(current, columns))
        order = np.argsort(-gains, kind="stable")
        joint = self._joint(current, columns[order[gains[order] > value]])
        best: tuple[Point, float] | None = None
        if len(joint):
            values = self._value(*self._posterior.predict(joint))
            best = self._first_free(
                (joint[place], float(values[place])) for place in np.argsort(-values)
            )
        single = self._first_free(
            (self._changed(current, columns[place]), float(gains[place])) for place in order
        )
        if best is None or (single is not None and single[1] >= best[1]):
            best = single
        return best if best is not None and best[1] > value else None

    def _joint(self, current: gp.Ints, columns: gp.Ints) -> gp.Ints:
        """``current`` with the first two, four, eight, ... of the changes, one per parameter."""
        _, first = np.unique(self._choices.owner[columns], return_index=True)
        columns = columns[np.sort(first)]
        points = []
        count = 2
        while count < 2 * len(columns):
            points.append(self._changed(current, columns[:count]))
            count *= 2
        return np.asarray(points, dtype=np.int64).reshape(-1, len(current))

    def _changed(self, current: gp.Ints, columns: gp.Ints) -> gp.Ints:
        changed = current.copy()
        owner = self._choices.owner[columns]
        changed[owner] = columns - self._choices.starts[owner]
        return changed

    def _first_free(self, ranked: Iterable[tuple[gp.Ints, float]]) -> tuple[Point, float] | None:
        for point, value in ranked:
            chosen = tuple(point.tolist())
            if self._is_free(chosen):
                return chosen, value
        return None

    def _value(self, mean: gp.Floats, deviation: gp.Floats) -> gp.Floats:
        return gp.log_expected_improvement(mean, deviation, self._best)
