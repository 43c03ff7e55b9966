"""The user attribute ``evidence`` of a trial: its samples, estimate, bounds and decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields
import math
from typing import Any


COMPLETE = "complete"
"""The decision on a trial that was evaluated on all samples."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The part of the samples that a trial has seen, and what they say.

    Args:
        samples:
            How many samples the trial has seen.
        of:
            How many there are.
        evaluated:
            How many of those it has seen it has evaluated itself. Default: all.
        decision:
            A :class:`~optuna_quant.sequential.Decision`, or :data:`COMPLETE`.
        estimate:
            The metric by what was seen; :obj:`None` if all was.
        bounds:
            Between what values the metric over all samples is; infinite where nothing is known.
        error_probability:
            With what probability a decision that the criterion is missed may be wrong.
        method:
            The method of the sequential test.
        reason:
            The decision in words.
    """

    samples: int
    of: int
    evaluated: int | None = None
    decision: str
    estimate: float | None = None
    bounds: tuple[float, float] | None = None
    error_probability: float | None = None
    method: str | None = None
    reason: str | None = None

    @property
    def cost(self) -> float:
        """What the trial has evaluated, over all samples."""
        return (self.samples if self.evaluated is None else self.evaluated) / self.of

    def to_attr(self) -> dict[str, Any]:
        """The value of the trial's attribute."""
        found = {name: value for name, value in vars(self).items() if value is not None}
        if self.bounds is not None:
            # JSON has no infinity.
            found["bounds"] = [bound if math.isfinite(bound) else None for bound in self.bounds]
        return found

    @classmethod
    def from_attr(cls, stored: Mapping[str, Any]) -> Evidence:
        """What a trial's attribute says."""
        names = {each.name for each in fields(cls)}
        found = {name: value for name, value in stored.items() if name in names}
        if found.get("bounds") is not None:
            low, high = found["bounds"]
            found["bounds"] = (
                -math.inf if low is None else low,
                math.inf if high is None else high,
            )
        return cls(**found)
