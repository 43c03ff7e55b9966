"""What stands where an op is switched: nothing, or what quantization does to a tensor."""

from __future__ import annotations

from typing import Any

import torch


_SMALLEST_SCALE = torch.finfo(torch.float32).eps


class Unchanged(torch.nn.Module):
    """Gives a tensor on as it is."""

    def forward(self, x: torch.Tensor, *_: object) -> torch.Tensor:
        """The first argument."""
        return x


class BatchNorm(torch.nn.Module):
    """Batch normalization as the exported program has it."""

    def forward(self, *args: Any) -> torch.Tensor:
        """For the arguments see ``aten.batch_norm``."""
        found: torch.Tensor = torch.ops.aten.batch_norm.default(*args)
        return found


class FakeQuantize(torch.nn.Module):
    """Rounds and clips to the values that a static quantizer leaves.

    Args:
        scale:
            The scale.
        zero_point:
            The zero point.
        low:
            The least integer.
        high:
            The largest one.
    """

    def __init__(self, scale: float, zero_point: int, low: int, high: int) -> None:
        super().__init__()
        self.parameters_of_tensor = (scale, zero_point, low, high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The values as they are after quantization."""
        return torch.fake_quantize_per_tensor_affine(x, *self.parameters_of_tensor)


class DynamicFakeQuantize(torch.nn.Module):
    """Rounds and clips to 8 bits over the range that a tensor has in this run.

    Args:
        low:
            The least integer.
        high:
            The largest one.
        symmetric:
            Whether the zero point is the middle.
    """

    def __init__(self, low: int, high: int, *, symmetric: bool) -> None:
        super().__init__()
        self.limits = (low, high)
        self.symmetric = symmetric

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The values as they are after quantization."""
        if x.numel() == 0:
            return x
        low, high = self.limits
        least, most = x.aminmax()
        least, most = least.clamp(max=0.0), most.clamp(min=0.0)
        if self.symmetric:
            extent = torch.maximum(-least, most) / ((high - low) / 2)
            scale, zero_point = extent.clamp(min=_SMALLEST_SCALE), torch.zeros_like(least)
            zero_point += (low + high + 1) // 2
        else:
            scale = ((most - least) / (high - low)).clamp(min=_SMALLEST_SCALE)
            zero_point = (low - torch.round(least / scale)).clamp(low, high)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point.int(), low, high)


class Cast(torch.nn.Module):
    """Gives a tensor on in another type of floats.

    Args:
        dtype:
            The type.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The values, rounded."""
        return x.to(self.dtype)
