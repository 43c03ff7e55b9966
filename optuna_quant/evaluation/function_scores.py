"""Interpret the return value of an evaluation function: one number, or scores of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any
from typing import TypeGuard

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_scores(value: object, *, in_parts: bool = False) -> NDArray[Any] | None:
    """The scores of samples that a function returned.

    Args:
        value:
            What it returned: an array, a list of numbers or a tensor, of shape ``(samples,)``; or
            a pair of two such, the scores and the margins.
        in_parts:
            Whether it must be scores: then an array that holds one number is the score of one
            sample, and not the metric.

    Returns:
        The scores, of shape ``(samples,)``, of a boolean, integer or floating-point type, not
        checked for NaN; :obj:`None` if it is none, but a number or something else.

    Raises:
        ValueError:
            If it is an array, but none of scores.
    """
    if _is_pair(value):
        value = value[0]
    array = _as_array(value)
    if array is not None and array.ndim == 1 and array.dtype.kind in "biuf" and array.size:
        return None if array.size == 1 and not in_parts else array
    if in_parts:
        shown = f"{value!r:.60}" if array is None else _shown(array)
    elif array is None or (array.size == 1 and array.dtype.kind in "biuf"):
        return None
    else:
        shown = _shown(array)
    want = "" if in_parts else "one number, the metric, or "
    raise ValueError(
        f"The evaluation returned {shown}, but it must return {want}one score for each sample, of "
        "shape (samples,). (Those of several batches are joined by numpy.concatenate.)"
    )


def margins_in(value: object, samples: int) -> NDArray[np.float64] | None:
    """The margin of each sample, if a function has returned margins.

    Args:
        value:
            What it returned.
        samples:
            The number of scores.

    Raises:
        ValueError:
            If the margins are not one number for each score.
    """
    if not _is_pair(value):
        return None
    margins = _as_array(value[1])
    if margins is None or margins.shape != (samples,) or margins.dtype.kind not in "biuf":
        shown = f"{value[1]!r:.60}" if margins is None else _shown(margins)
        raise ValueError(
            f"The evaluation returned a pair of {samples} scores and {shown}: the second must "
            "be the margin of each sample, how far its decision is from changing."
        )
    return margins.astype(np.float64)


def _is_pair(value: object) -> TypeGuard[tuple[object, object]]:
    """Whether these are scores with margins; two numbers are several metrics."""
    if not (isinstance(value, tuple) and len(value) == 2):
        return False
    scores = _as_array(value[0])
    return scores is not None and scores.ndim > 0


def _as_array(value: object) -> NDArray[Any] | None:
    """An array, a list or a tensor as an array; :obj:`None` of anything else."""
    if isinstance(value, list):  # A tuple of numbers is more often several metrics.
        try:
            return np.asarray([_plain(item) for item in value])
        except ValueError:  # Of several lengths.
            whole = np.empty(len(value), dtype=object)
            whole[:] = [None] * len(value)
            return whole
    value = _plain(value)
    # Numbers of NumPy are no arrays, and have the method as well.
    if isinstance(value, np.generic) or not hasattr(value, "__array__"):
        return None
    return np.asarray(value)


def _plain(value: object) -> object:
    """A tensor as an array, wherever it lies and whatever it is part of."""
    detach = getattr(value, "detach", None)
    if not callable(detach):
        return value
    tensor = detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:  # NumPy has no bfloat16.
        return tensor.float().numpy()


def _shown(array: NDArray[Any]) -> str:
    return f"an array of shape {array.shape} and type {array.dtype}"
