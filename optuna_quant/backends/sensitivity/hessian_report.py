"""What was found about the Hessian of a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OpTrace:
    """The Hessian trace of one op.

    Args:
        weight:
            What the op's weight is called.
        size:
            How many values it has.
        trace:
            The estimated trace of the loss's Hessian in the weight.
        standard_error:
            The standard error of ``trace`` from the random probes. It does not cover the choice
            of the samples.
        converged:
            Whether ``standard_error`` is within the tolerance.
    """

    weight: str
    size: int
    trace: float
    standard_error: float
    converged: bool

    @property
    def average(self) -> float:
        """The trace over the number of values."""
        return self.trace / self.size


@dataclass(frozen=True)
class HessianReport:
    """How the Hessian traces were estimated, and how well.

    Args:
        ops:
            The traces, by op.
        probes:
            How many probes the estimates are means of; 8 more set the lengths of these.
        samples:
            How many samples the loss was taken over.
        seed:
            Of the probes.
        tolerance:
            The relative standard error that was aimed at.
    """

    ops: Mapping[str, OpTrace]
    probes: int
    samples: int
    seed: int
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether all traces are within the tolerance."""
        return all(trace.converged for trace in self.ops.values())

    def dataframe(self) -> pd.DataFrame:
        """A row per op, with the columns of :class:`OpTrace` and the average trace."""
        import pandas as pd

        names = ["weight", "size", "trace", "standard_error", "average", "converged"]
        rows = [[getattr(trace, name) for name in names] for trace in self.ops.values()]
        return pd.DataFrame(rows, index=pd.Index(list(self.ops), name="op"), columns=names)
