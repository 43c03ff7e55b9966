"""What a node does to each channel of a convolution's output, so that the convolution can do it.

This is a BatchNormalization, or what exporters make of one: Add, Sub, Mul or Div with a constant
for each channel, also behind a Transpose or Squeeze.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.backends.onnxruntime.model.graph import node_attributes


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    import onnx


ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Sub"})
"""Operators that may be such a step, beside BatchNormalization."""


@dataclass(frozen=True, eq=False)
class ChannelStep:
    """``(x + before) * factor + after``, with a value for each channel or one for all.

    Args:
        before:
            What is added first.
        factor:
            What the sum is multiplied with.
        after:
            What is added then.
    """

    before: NDArray[np.float64]
    factor: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChannelSteps:
    """The steps behind one convolution, as what they make of its weight and its bias.

    Args:
        factor:
            What each output channel of the weight is multiplied with; None for nothing.
        bias:
            The bias.
        last:
            The name of the last step's constant.
    """

    factor: NDArray[np.float64] | None
    bias: NDArray[np.float64]
    last: str

    def then(self, step: ChannelStep, last: str) -> ChannelSteps:
        """These and one more."""
        factor = self.factor
        if (step.factor != 1).any():
            factor = step.factor if factor is None else factor * step.factor
        return ChannelSteps(factor, (self.bias + step.before) * step.factor + step.after, last)

    def weight(self, weight: NDArray[Any]) -> NDArray[np.float64]:
        """The weight after these steps."""
        factor = np.ones(1) if self.factor is None else self.factor
        return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))

    def are_finite(self, weight: NDArray[Any]) -> bool:
        """Whether the weight and the bias are so as 32-bit floats."""
        with np.errstate(over="ignore"):
            changed = () if self.factor is None else self.weight(weight).astype(np.float32)
            return bool(np.isfinite(changed).all() and np.isfinite(np.float32(self.bias)).all())


def batch_norm_step(
    node: onnx.NodeProto, constants: Sequence[NDArray[np.float64]]
) -> ChannelStep | None:
    """What a BatchNormalization does; None if it is in training mode.

    Args:
        node:
            The node.
        constants:
            The constants that it reads, in their order.
    """
    attributes = node_attributes(node)
    if attributes.get("training_mode", 0) or any(node.output[1:]):
        return None
    gamma, beta, mean, variance = constants
    return ChannelStep(-mean, gamma / np.sqrt(variance + attributes.get("epsilon", 1e-5)), beta)


def elementwise_step(
    node: onnx.NodeProto,
    constant: NDArray[np.float64],
    axes: Sequence[int],
    channels: int,
    *,
    constant_first: bool,
) -> ChannelStep | None:
    """What an Add, Sub, Mul or Div with a constant does; None if it is not one per channel.

    Args:
        node:
            The node.
        constant:
            The constant.
        axes:
            Which of the convolution's axes those of the other operand are.
        channels:
            How many channels there are.
        constant_first:
            Whether the constant is the first operand.
    """
    if constant.ndim > len(axes) or not constant.size:
        return None
    sizes = [1] * (len(axes) - constant.ndim) + list(constant.shape)
    if any(
        size != 1 and (axis != 1 or size != channels)
        for size, axis in zip(sizes, axes, strict=True)
    ):
        return None
    value = constant.reshape(-1)
    zero, one = np.zeros(1), np.ones(1)
    if node.op_type == "Add":
        return ChannelStep(zero, one, value)
    if node.op_type == "Mul":
        return ChannelStep(zero, value, zero)
    if node.op_type == "Sub":
        return ChannelStep(zero, -one, value) if constant_first else ChannelStep(zero, one, -value)
    if node.op_type == "Div" and not constant_first and value.all():
        return ChannelStep(zero, 1 / value, zero)
    return None


def axes_behind(
    node: onnx.NodeProto, axes: Sequence[int], squeezed: Sequence[int] | None
) -> tuple[int, ...] | None:
    """Which of the convolution's axes are left behind a Transpose or Squeeze, and in which order.

    Args:
        node:
            The node.
        axes:
            Which those of its input are.
        squeezed:
            The axes that a Squeeze leaves out, as its input says; None if that is not known.

    Returns:
        None if it is another node, or that is not known.
    """
    attributes = node_attributes(node)
    if node.domain:
        return None
    if node.op_type == "Transpose":
        order = attributes.get("perm", range(len(axes))[::-1])
        return tuple(axes[axis] for axis in order)
    if node.op_type == "Squeeze":
        out = attributes.get("axes", squeezed)
        if out is None:
            return None
        gone = {axis % len(axes) for axis in out}
        return tuple(axis for i, axis in enumerate(axes) if i not in gone)
    return None
