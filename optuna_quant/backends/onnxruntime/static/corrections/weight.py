"""Weight correction: a quantized weight with the means and the deviation of the weight in floats.

Rounding moves the mean of an output channel's weights and changes how far they spread, which the
sums over many inputs amplify (Banner et al., "Post training 4-bit quantization of convolutional
networks for rapid-deployment", 2019, section 4). That paper restores both by a factor and a
summand for each channel. A factor is free here, since each scale takes it. A summand is not:
symmetric integers have no place for it. So the mean is restored by integers: of each output's
values, a few are rounded the other way, those that were the closest to the middle between two
steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_ROUNDS = 3
"""How often the scale and the integers are fitted to each other; more changes hardly anything."""


def corrected_weight(
    array: NDArray[np.float32], weight: QuantizedWeight, reduced: tuple[int, ...]
) -> QuantizedWeight:
    """A quantized weight whose means and deviation are those of the weight in floats.

    The mean of each output's values is off by half a step over their number at most, unless values
    at the ends of the range would have to leave it. The deviation, of each channel if there is a
    scale for each, of the whole weight if there is one, is as it should be for the integers before
    the last few were rounded the other way: within a thousandth where there are many.

    Args:
        array:
            The weight in floats.
        weight:
            The same, quantized.
        reduced:
            The axes that the product sums over: the others tell the outputs apart.

    Returns:
        The corrected weight, on the same zero points. Channels without any deviation, in floats or
        in integers, keep their scale.
    """
    shape = _along(weight, array.ndim)
    zero_point = weight.zero_point.astype(np.int64).reshape(shape)
    steps = weight.values.astype(np.int64) - zero_point
    channel = tuple(axis for axis in range(array.ndim) if axis != weight.axis)
    wanted = array.astype(np.float64)
    limits = _limits(weight) - zero_point[np.newaxis]
    reduced = tuple(axis % array.ndim for axis in reduced)
    corrected, scale = steps, weight.scale
    for _ in range(_ROUNDS):
        scale = _with_deviation(wanted, corrected, weight.scale, channel)
        grid = scale.reshape(shape).astype(np.float64)
        in_steps = np.divide(wanted, grid, out=np.zeros_like(wanted), where=grid > 0)
        corrected = _with_means(in_steps, steps, limits, reduced)
    values = (corrected + zero_point).astype(weight.values.dtype)
    return QuantizedWeight(values, scale, weight.zero_point, weight.axis)


def _along(weight: QuantizedWeight, rank: int) -> tuple[int, ...]:
    """The shape in which channels are multiplied with the weight."""
    return tuple(-1 if axis == weight.axis else 1 for axis in range(rank))


def _with_deviation(
    wanted: NDArray[np.float64],
    steps: NDArray[np.int64],
    scale: NDArray[np.float32],
    channel: tuple[int, ...],
) -> NDArray[np.float32]:
    """The scale with which steps have the deviation that is wanted."""
    target, own = (np.asarray(values.std(axis=channel)) for values in (wanted, steps))
    usable = (target > 0) & (own > 0)
    found = np.divide(target, own, out=np.array(scale, np.float64), where=usable)
    return np.asarray(found, np.float32)


def _limits(weight: QuantizedWeight) -> NDArray[np.int64]:
    """The least and the greatest integers that its values may have, of the rank of the weight."""
    # What it takes already it may take: a symmetric or narrowed range does not use the whole type.
    found = [int(weight.values.min(initial=0)), int(weight.values.max(initial=0))]
    return np.array(found, np.int64).reshape(2, *(1,) * weight.values.ndim)


def _with_means(
    wanted: NDArray[np.float64],
    steps: NDArray[np.int64],
    limits: NDArray[np.int64],
    reduced: tuple[int, ...],
) -> NDArray[np.int64]:
    """Steps whose sums over some axes are those that are wanted, to half a step.

    Args:
        wanted:
            The values, in steps.
        steps:
            The same, rounded.
        limits:
            The least and the greatest that a step may be.
        reduced:
            The axes.
    """
    order = (*(axis for axis in range(steps.ndim) if axis not in reduced), *reduced)
    terms = int(np.prod([steps.shape[axis] for axis in reduced], dtype=np.int64))

    def rows(values: NDArray[Any]) -> NDArray[Any]:
        spread = np.broadcast_to(values, steps.shape)
        return np.ascontiguousarray(spread.transpose(order)).reshape(-1, terms)

    moved = rows(steps)
    rest = rows(wanted) - moved
    missing = np.rint(rest.sum(axis=1)).astype(np.int64)
    direction = np.sign(missing)[:, np.newaxis]
    room = np.where(direction > 0, rows(limits[1]) - moved, moved - rows(limits[0])) > 0
    # Never a whole step away from the value: that would move more than rounding does.
    usable = room & (rest * direction > 0)
    ranked = np.argsort(np.where(usable, -rest * direction, np.inf), axis=1, kind="stable")
    counts = np.minimum(np.abs(missing), usable.sum(axis=1))
    chosen = np.arange(terms) < counts[:, np.newaxis]
    change = np.zeros_like(moved)
    np.put_along_axis(change, ranked, chosen * direction, axis=1)
    moved = moved + change
    back = np.argsort(order)
    shape = [steps.shape[axis] for axis in order]
    return np.ascontiguousarray(moved.reshape(shape).transpose(back))
