"""Weights whose sums of products, with the bias, stay within the 32 bits of the integer kernels.

The kernels add ``(activation - its zero point) * (weight - its zero point)`` over the inputs of an
output, and the bias, in a signed 32-bit integer, which wraps around: a value that does not fit
comes out with the other sign. Where it could, the weight gets a coarser grid. How far the sums can
go is known, because the weights are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight
from optuna_quant.backends.onnxruntime.model.weights import on_coarser_grid


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable

    from numpy.typing import NDArray


INT32_MAX = 2**31 - 1

# Scales are rounded to 32-bit floats, which moves a bias of 31 bits by some 256.
_LIMIT = INT32_MAX - 2**13
# The largest product of an 8-bit activation and an 8-bit weight, less their zero points.
_LARGEST_PRODUCT = 255 * 255
# By how much more than needed a grid gets coarser, for the rounding of the weights.
_SLACK = 1e-4


@dataclass(frozen=True)
class ActivationSteps:
    """How far quantized activations can be from their zero point.

    Args:
        below:
            The most steps below it.
        above:
            The most steps above it.
    """

    below: int
    above: int


def steps_of(zero_point: int, dtype: str) -> tuple[ActivationSteps, ...]:
    """What an activation with a known zero point can be.

    Args:
        zero_point:
            The zero point.
        dtype:
            ``"uint8"`` or ``"int8"``.
    """
    limits = np.iinfo(dtype)
    return (ActivationSteps(zero_point - int(limits.min), int(limits.max) - zero_point),)


UNKNOWN_STEPS = (ActivationSteps(0, 255), ActivationSteps(255, 0))
"""The extremes of an activation of 8 bits whose zero point is found at run time."""


NO_STEPS = (ActivationSteps(0, 0),)
"""For products whose sums need not fit: then only the bias is looked at."""


def fit_accumulator(
    weight: QuantizedWeight,
    load: Callable[[], NDArray[np.float32]],
    *,
    reduced: tuple[int, ...],
    steps: tuple[ActivationSteps, ...] = UNKNOWN_STEPS,
    input_scale: float = 1.0,
    bias: NDArray[np.float64] | None = None,
) -> QuantizedWeight:
    """A quantized weight with which no sum of an integer kernel can leave 32 bits.

    Args:
        weight:
            The weight as its own range has it.
        load:
            Gives its value in floats; called only if that is needed.
        reduced:
            The axes that the product sums over: all but the first of a convolution's weight, the
            one that both have in common of a matrix product.
        steps:
            What the activation can be.
        input_scale:
            The scale of the activation; of use with a bias only.
        bias:
            What is added to the sums in integers, a value for each output, in the shape of the
            other axes of the weight; or as many values for each of several groups, one after the
            other.

    Returns:
        The same weight if it fits, otherwise one on the finest grid that does.

    Raises:
        ValueError:
            If the bias is not finite, or so large that there is no such grid.
    """
    if bias is not None and not np.isfinite(bias).all():
        raise ValueError("The bias holds NaN or infinite values, so it cannot be quantized.")
    bound = _Bound(weight, reduced, steps, input_scale)
    if bias is not None and bias.size > bound.outputs:
        bias = np.abs(bias.reshape(-1, bound.outputs)).max(0)
    if bound.surely_holds(weight.scale, bias):
        return weight
    scale = bound.scale(weight, bias)
    while scale is not None:
        if not np.isfinite(scale).all():
            raise ValueError(
                "The bias is too large to be added to integer products of the input and the "
                "weight."
            )
        weight = on_coarser_grid(load(), weight, scale)
        scale = bound.scale(weight, bias)
    return weight


class _Bound:
    def __init__(
        self,
        weight: QuantizedWeight,
        reduced: tuple[int, ...],
        steps: tuple[ActivationSteps, ...],
        input_scale: float,
    ) -> None:
        shape = weight.values.shape
        self._rank = len(shape)
        self._reduced = tuple(axis % self._rank for axis in reduced)
        self._steps = steps
        self._input_scale = input_scale
        self._terms = int(np.prod([shape[axis] for axis in self._reduced], dtype=np.int64))
        kept = [axis for axis in range(self._rank) if axis not in self._reduced]
        self._kept_shape = tuple(shape[axis] for axis in kept)
        self.outputs = int(np.prod(self._kept_shape, dtype=np.int64))
        # Where the channels of the weight's scale are among the axes that are kept.
        self._channel = None if weight.axis is None else kept.index(weight.axis % self._rank)

    def surely_holds(self, scale: NDArray[np.float32], bias: NDArray[np.float64] | None) -> bool:
        """Whether it does for any weight of this shape, which is quick to tell."""
        most = self._terms * _LARGEST_PRODUCT
        return bool(most + np.abs(self._bias(scale, bias)).max(initial=0.0) < _LIMIT)

    def scale(
        self, weight: QuantizedWeight, bias: NDArray[np.float64] | None
    ) -> NDArray[np.float32] | None:
        """A coarser scale that should do; None if the weight's own does."""
        zero_point = weight.zero_point.astype(np.int64)
        steps = weight.values - zero_point.reshape(self._along_axes(zero_point.ndim))
        above = np.where(steps > 0, steps, 0).sum(self._reduced, dtype=np.int64)
        below = np.where(steps < 0, -steps, 0).sum(self._reduced, dtype=np.int64)
        integers = self._bias(weight.scale, bias)
        high = _max_of(above * s.above + below * s.below for s in self._steps) + integers
        low = _max_of(above * s.below + below * s.above for s in self._steps) - integers
        used = np.maximum(high, low) / _LIMIT
        if used.max(initial=0.0) <= 1.0:
            return None
        factor = np.where(used > 1.0, used * (1.0 + _SLACK), 1.0)
        # All that is added up is in steps of this scale, but for the rounding of the weights.
        needed = factor * self._along_kept(weight.scale.astype(np.float64))
        with np.errstate(over="ignore"):  # infinity is dealt with
            return self._by_channel(needed).astype(np.float32)

    def _bias(
        self, scale: NDArray[np.float32], bias: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """The bias in integers, not limited to 32 bits."""
        if bias is None:
            return np.zeros(self._kept_shape)
        unit = self._input_scale * self._along_kept(scale.astype(np.float64))
        return np.rint(np.divide(bias, unit, out=np.zeros(bias.shape), where=unit > 0))

    def _along_axes(self, ndim: int) -> tuple[int, ...]:
        """The shape in which channels are multiplied with the weight."""
        if ndim == 0 or self._channel is None:
            return (1,) * self._rank
        kept = [axis for axis in range(self._rank) if axis not in self._reduced]
        axis = kept[self._channel]
        return tuple(-1 if i == axis else 1 for i in range(self._rank))

    def _along_kept(self, channels: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value for each output, of one for each channel or a single one."""
        if channels.ndim and self._channel is not None:
            shape = [1] * len(self._kept_shape)
            shape[self._channel] = -1
            channels = channels.reshape(shape)
        return np.broadcast_to(channels, self._kept_shape)

    def _by_channel(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest value of each channel; of all, if there is one scale."""
        others = tuple(axis for axis in range(outputs.ndim) if axis != self._channel)
        return np.asarray(outputs.max(others))


def _max_of(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The elementwise maximum."""
    return reduce(np.maximum, arrays)
