"""What a trial's simulation gave, beside the model that was built of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
import math
from typing import Any

from optuna_quant._common.printable import percent


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """How far the outputs of two models are from each other.

    Args:
        samples:
            On how many samples.
        of:
            Of which data: ``"evaluation"`` or ``"calibration"``.
        agreement:
            The share of predictions that are the same: the place of the largest value on the last
            axis of the first output, which has classes. None if it can have none.
        largest:
            The largest absolute difference of two numbers; None if one is not finite.
        relative:
            The norm of the difference over the norm of the first model's outputs; likewise.
    """

    samples: int
    of: str = "evaluation"
    agreement: float | None = None
    largest: float | None = None
    relative: float | None = None

    @property
    def in_short(self) -> str:
        """The one thing that tells most."""
        if self.agreement is not None:
            return f"{_share(self.agreement)} of predictions are the same"
        if self.largest is None:
            return "outputs are not finite"
        return f"outputs differ by at most {self.largest:.3g}"

    def __str__(self) -> str:
        on = f"{self.samples} {self.of} sample{'' if self.samples == 1 else 's'}"
        if self.largest is None or self.relative is None:
            return f"on {on}, outputs are not finite"
        if self.largest == 0:
            return f"on {on}, outputs are the same"
        parts = []
        if self.agreement is not None:
            parts.append(f"{_share(self.agreement)} of predictions (largest outputs) are the same")
        parts.append(
            f"outputs differ by at most {self.largest:.3g} "
            f"({percent(self.relative, digits=2)}% of their size)"
        )
        return f"on {on}, {', and '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What the simulation of a trial's model gave.

    Args:
        metric:
            Its metric.
        evaluated:
            How much was evaluated for it, in full-evaluation equivalents.
        difference:
            How far its outputs are from those of the model; None if that was not measured.
    """

    metric: float
    evaluated: float
    difference: OutputDifference | None = None

    def to_attr(self) -> dict[str, Any]:
        """The value of the trial's attribute."""
        found: dict[str, Any] = {"metric": self.metric, "evaluated": self.evaluated}
        if self.difference is not None:
            found["difference"] = asdict(self.difference)
        return found

    @classmethod
    def from_attr(cls, stored: Mapping[str, Any]) -> Simulation:
        """Read the value of a trial's attribute."""
        difference = stored.get("difference")
        return cls(
            metric=float(stored["metric"]),
            evaluated=float(stored["evaluated"]),
            difference=None if difference is None else OutputDifference(**difference),
        )

    def beside(self, metric: float | None) -> str:
        """It in words, beside the metric of the model.

        Args:
            metric:
                The metric of the model; None if it is not known.
        """
        found = f"its simulation had a metric of {self.metric:.6g}"
        if metric is not None:
            differs = self.metric - metric
            how = f"{abs(differs):.3g} {'more' if differs > 0 else 'less'}"
            found += f" ({how if differs else 'the same'})"
        return found if self.difference is None else f"{found}; {self.difference}"


def finite(value: float) -> float | None:
    """A number that JSON has; None if it is not finite."""
    return value if math.isfinite(value) else None


def _share(value: float) -> str:
    """A share as a percentage; it is all or nothing only if it is exactly."""
    shown = f"{100 * value:.4g}%"
    if shown == "100%" and value < 1:
        return "nearly 100%"
    return shown
