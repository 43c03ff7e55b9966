"""Observed losses of configurations, and the units of losses."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LossScale:
    """The unit of losses, and the largest possible loss.

    Args:
        tolerance:
            The largest loss that is good enough, in units of the metric; above zero.
        size:
            The size of the baseline, in units of the metric; 0 if it says nothing of the scale.
        most:
            The largest possible loss; infinite if there is none.
        learned:
            The logarithm of the loss at the reference error, and the exponent, as an earlier
            study has learned them; :obj:`None` if there is none.
    """

    tolerance: float
    size: float
    most: float = math.inf
    learned: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Observed:
    """The observed loss of a configuration.

    Args:
        options:
            The position of the option of each op, of shape ``(ops,)``.
        loss:
            By how much the metric is worse than the baseline, in its units.
        error:
            The standard error of the loss, where only some of the samples were seen.
        spread:
            The standard error of the loss as one that all possible samples have: what these
            samples are off it, which similar configurations share.
    """

    options: NDArray[np.int64]
    loss: float
    error: float = 0.0
    spread: float = 0.0
