"""The cheapest configuration of a small space, found by trying all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt


if TYPE_CHECKING:
    from optuna_quant.costs.table import Boundary


# Where a solver takes tens of milliseconds, these take less than one.
_MOST_CONFIGURATIONS = 4096

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """An option of an op, or of ops that have one option together.

    Attributes:
        cost:
            What it costs.
        weight:
            What it adds to the sum of weights.
        fallbacks:
            How many ops it puts into fallback.
        is_quantized:
            Whether the ops are quantized.
    """

    cost: float
    weight: float
    fallbacks: int
    is_quantized: bool


def can_be_enumerated(choices: Sequence[Sequence[Choice]]) -> bool:
    """Whether there are so few configurations that trying all is faster than a solver."""
    return math.prod(map(len, choices)) <= _MOST_CONFIGURATIONS


def best_of_all(
    choices: Sequence[Sequence[Choice]],
    boundaries: Sequence[Boundary],
    place: Mapping[str, int],
    *,
    bound: float | None,
    equal: float,
) -> list[int]:
    """The configuration that costs least within a bound of the sum of weights.

    Of equally cheap ones that with the smaller sum of weights, then with fewer ops in fallback,
    then the first in the order of the options.

    Args:
        choices:
            For each place its options. One configuration at least is within the bound.
        boundaries:
            What is paid between the ops.
        place:
            The place of each op, by its name. An op without one runs in floats.
        bound:
            The largest allowed sum of weights. :obj:`None`: any.
        equal:
            The difference below which numbers are equal, relative to the largest.

    Returns:
        The position of the option of each place.
    """
    counts = [len(options) for options in choices]
    number = math.prod(counts)
    # Not numpy.indices, which has at most 32 or 64 places.
    chosen: list[npt.NDArray[np.intp]] = []
    rest = np.arange(number)
    for count in reversed(counts):
        rest, position = np.divmod(rest, count)
        chosen.append(position)
    chosen.reverse()

    def total(values: Sequence[Sequence[float]]) -> _Vector:
        added = np.zeros(number)
        for own, position in zip(values, chosen, strict=True):
            added += np.array(own)[position]
        return added

    quantized = [
        np.array([option.is_quantized for option in options])[position]
        for options, position in zip(choices, chosen, strict=True)
    ]
    weights = [[option.weight for option in options] for options in choices]
    costs = [[option.cost for option in options] for options in choices]
    paid = [cost for b in boundaries for cost in (b.quantize, b.dequantize)]
    fallbacks = [[float(option.fallbacks) for option in options] for options in choices]
    floats = np.zeros(number, bool)
    cost = total(costs)
    for boundary in boundaries:
        states = [
            quantized[place[op]] if op in place else floats
            for op in (boundary.producer, *boundary.consumers)
        ]
        if len(states) > 1:
            cost += boundary.quantize * (~states[0] & np.logical_or.reduce(states[1:]))
            cost += boundary.dequantize * (states[0] & ~np.logical_and.reduce(states[1:]))
    weight = total(weights)
    left = np.arange(number)
    if bound is not None:
        # The smallest is allowed though rounding may have put it above.
        most = max(bound, float(weight.min()))
        left = left[weight <= most + equal * _largest(weights)]
    for values, scale in (
        (cost, _largest([*costs, paid])),
        (weight, _largest(weights)),
        (total(fallbacks), 1.0),
    ):
        found = values[left]
        left = left[found <= found.min() + equal * scale]
    return [int(position[left[0]]) for position in chosen]


def _largest(values: Sequence[Sequence[float]]) -> float:
    return max((abs(value) for row in values for value in row), default=0.0) or 1.0
