"""The bounds of the scores of a metric."""

from __future__ import annotations

from collections.abc import Iterable
import math
from typing import SupportsFloat
from typing import TypeAlias


Bounds: TypeAlias = "tuple[float, float]"


def checked_bounds(name: str, bounds: Iterable[SupportsFloat | str]) -> Bounds:
    """The bounds of a metric as two numbers.

    Raises:
        ValueError:
            If they are not two numbers, the lower one first, of which one at least is finite.
    """
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (low < high and low < math.inf and high > -math.inf) or math.inf == high == -low:
        raise ValueError(
            f"The bounds of the metric {name!r} must be two numbers, the lower one first, at "
            f"least one of them finite, but got {bounds!r}. Use None if they are not known."
        )
    return low, high


def useful_bounds(bounds: Bounds | None, *, higher_is_better: bool) -> Bounds | None:
    """The bounds with which a part of the samples can be enough to tell that a model fails.

    Args:
        bounds:
            The lowest and the highest score of a sample; :obj:`None` if they are not known.
        higher_is_better:
            Whether a higher score is better.

    Returns:
        The bounds; :obj:`None` if the best score is not known.
    """
    if bounds is None:
        return None
    low, high = bounds
    return bounds if math.isfinite(high if higher_is_better else low) else None
