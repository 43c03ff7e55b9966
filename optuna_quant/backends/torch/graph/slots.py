"""What stands where an op is switched: nothing, or what quantization does to a tensor."""

from __future__ import annotations

from typing import Any

import torch


# The oldest operators of torch.export's own form of quantized programs.
_OPS: Any = torch.ops.quantized_decomposed

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
        dtype = torch.uint8 if low == 0 else torch.int8
        choose = _OPS.choose_qparams_symmetric if self.symmetric else _OPS.choose_qparams
        scale, zero_point = choose.tensor(x, low, high, _SMALLEST_SCALE, dtype)
        quantized = _OPS.quantize_per_tensor.tensor(x, scale, zero_point, low, high, dtype)
        args = quantized, scale, zero_point, low, high, dtype
        found: torch.Tensor = _OPS.dequantize_per_tensor.tensor(*args)
        return found


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
