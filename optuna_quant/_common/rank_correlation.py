"""Spearman's rank correlation, without the half second that importing scipy.stats takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation of two sequences; equal values share their mean rank.

    Args:
        first:
            Finite numbers, at least two, which differ somewhere.
        second:
            As many numbers, likewise.

    Returns:
        Between -1 and 1; not a number if all numbers of a sequence are equal.
    """
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(_mean_ranks(first), _mean_ranks(second))[0, 1])


def _mean_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(counts).astype(np.float64)
    return (last - (counts - 1) / 2)[which]
