"""Weights as they are after quantization, computed with torch at each step of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.ranges.ranges import quantized_limits
from optuna_quant.backends.ranges.seven_bits import SYMMETRIC_PART
from optuna_quant.backends.ranges.seven_bits import SYMMETRIC_TOP
from optuna_quant.backends.torch.qat.straight_through import straight_through
from optuna_quant.backends.weight_algorithms.by_group import group_ranges
from optuna_quant.backends.weight_algorithms.levels import Levels


if TYPE_CHECKING:
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.space.config import TensorConfig


TRAINED_ALGORITHMS = ("minmax", "rtn")
"""The algorithms of weights that can be trained: those that round to the nearest value."""

_TINY = torch.finfo(torch.float32).tiny
_LARGEST = torch.finfo(torch.float32).max


def check_trainable(op: TorchOp, config: TensorConfig) -> None:
    """Check that a weight can be quantized at each step of training.

    Raises:
        ValueError:
            If it is quantized by an algorithm that does more than round.
    """
    if config.algorithm not in TRAINED_ALGORITHMS:
        raise ValueError(
            f"The weight of op {op.name!r} is quantized by {config.algorithm!r}, which cannot be "
            f"done at each step of training: choose {' or '.join(TRAINED_ALGORITHMS)}."
        )


def fake_quantized(
    weight: torch.Tensor, op: TorchOp, config: TensorConfig, *, reduce_range: bool = False
) -> torch.Tensor:
    """A weight as it is after quantization, with the gradients of the weight.

    Its values are those of :class:`~optuna_quant.backends.torch.candidates.weights
    .QuantizedWeights`, bit for bit.

    Args:
        weight:
            The weight, with its batch normalization folded in.
        op:
            The op.
        config:
            How it is quantized.
        reduce_range:
            Whether weights that are multiplied as integers use 7 of their 8 bits.
    """
    if config.algorithm == "rtn":
        levels = Levels(config.bits, "sym" if config.scheme == "sym" else "asym")
        width = config.group_size or weight.shape[1]
        return straight_through(weight, lambda values: _by_group(values, levels, width))
    axis = op.channel_axis if config.granularity == "per_channel" else None
    _, top = quantized_limits(config.dtype, config.scheme)
    return straight_through(weight, lambda values: _by_channel(values, axis, top, reduce_range))


def _by_channel(
    values: torch.Tensor, axis: int | None, top: int, reduce_range: bool
) -> torch.Tensor:
    """Symmetric, with one scale for each index of an axis, or one for all."""
    rest = [place for place in range(values.ndim) if place != axis]
    extent = values.abs().amax(rest, keepdim=True).double()
    scale = torch.where(extent > 0, extent / top, 1.0).clamp(min=_TINY).float()
    if reduce_range:
        scale, top = scale / float(SYMMETRIC_PART), SYMMETRIC_TOP
    return (values / scale).round_().clamp_(-top, top).mul_(scale)


def _by_group(values: torch.Tensor, levels: Levels, width: int) -> torch.Tensor:
    """With a scale, and perhaps a zero point, for each group of a row."""
    parts = []
    for _, columns in group_ranges(values.shape[1], width):
        part = values[:, columns]
        groups = part.reshape(-1, min(width, part.shape[1]))
        scale, zero_point = _min_max(groups, levels)
        codes = (groups / scale).add_(zero_point).round_().clamp_(0, levels.top)
        parts.append(codes.sub_(zero_point).mul_(scale).reshape(part.shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _min_max(groups: torch.Tensor, levels: Levels) -> tuple[torch.Tensor, torch.Tensor]:
    """See :meth:`Levels.min_max`."""
    low, high = groups.amin(1, keepdim=True).double(), groups.amax(1, keepdim=True).double()
    if levels.scheme == "sym":
        scale = _usable(torch.where(high > -low, high, low) / -levels.middle, levels.bits)
        return scale, torch.full_like(scale, levels.middle)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _usable((high - low) / levels.top, levels.bits)
    return scale, (-low / scale).round_().clamp_(0, levels.top).float()


def _usable(scale: torch.Tensor, bits: int) -> torch.Tensor:
    largest = _LARGEST / 2**bits
    limited = scale.clamp(-largest, largest)
    return torch.where(limited.abs() < _TINY, 1.0, limited).float()
