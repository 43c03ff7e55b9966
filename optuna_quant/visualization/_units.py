"""Axes with names and units that people read."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import MEASURES
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE


if TYPE_CHECKING:
    from collections.abc import Iterable


_UNITS = {
    LATENCY: (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)),
    SIZE: (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0)),
}
_COUNTS = (("10¹²", 1e12), ("10⁹", 1e9), ("10⁶", 1e6), ("10³", 1e3), ("", 1.0))
_NAMES = {
    LATENCY: "Time of a run",
    SIZE: "Size of the model",
    OPS: "Ops in fallback",
    "multiply_adds": "Multiply-adds in floating point",
    "bit_operations": "Bit operations",
}


@dataclass(frozen=True)
class Unit:
    """What an axis shows.

    Args:
        name:
            What is shown.
        unit:
            In which unit; empty for none.
        one:
            The unit, in that of the values.
    """

    name: str
    unit: str = ""
    one: float = 1.0

    @property
    def title(self) -> str:
        """The title of the axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def scaled(self, value: float) -> float:
        """A value in this unit.

        Args:
            value:
                The value.
        """
        return value / self.one


def unit_of(measure: str, values: Iterable[float], *, name: str | None = None) -> Unit:
    """The unit in which values of a measure have few digits.

    Args:
        measure:
            The measure, or the name of an objective of the user's.
        values:
            What is shown.
        name:
            What the axis calls it. Default: by the measure.
    """
    called = name or _NAMES.get(measure, f"Cost: {measure}")
    if measure == OPS or measure not in MEASURES:
        relative = "relative to FP32" if "=" in measure else ""
        return Unit(called, relative)
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    units = _UNITS.get(measure, _COUNTS)
    unit, one = next((each for each in units if largest >= each[1]), units[-1])
    return Unit(called, unit, one)
