"""Activation ranges that are trained with the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.torch.candidates.plan import limits_of
from optuna_quant.backends.torch.qat.straight_through import straight_through


if TYPE_CHECKING:
    from typing import Any


class LearnedFakeQuantize(torch.nn.Module):
    """Rounds and clips to the values that a static quantizer leaves, with a scale to be trained.

    The gradient of the scale is that of Esser et al., *Learned Step Size Quantization* (2020).
    What is trained is the logarithm of its ratio to the scale that calibration gave, so that a
    step of an optimizer changes large and small scales in the same proportion. The zero point
    stays.

    Args:
        params:
            What calibration gave.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.initial = params
        self.log_ratio = torch.nn.Parameter(torch.zeros(()))

    @property
    def params(self) -> Params:
        """Scale and zero point as they are now.

        Raises:
            ValueError:
                If the scale is not finite, or zero.
        """
        # To float32, as every scale.
        scale = float((self.initial.scale * self.log_ratio.detach().double().exp()).float())
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"its scale became {scale:g}")
        return Params(scale, self.initial.zero_point, self.initial.dtype)

    def extra_repr(self) -> str:
        """What it was before training."""
        return f"initial={self.initial}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The values as they are after quantization."""
        low, high = limits_of(self.initial.dtype)
        ratio: Any = self.log_ratio
        slower = 1.0 / math.sqrt(max(1, x.numel()) * (high - low) / 2)
        ratio = straight_through(ratio * slower, lambda _: self.log_ratio.detach().clone())
        scale = self.initial.scale * ratio.exp()
        zero_point = self.initial.zero_point
        codes = straight_through(x / scale, torch.round).clamp(low - zero_point, high - zero_point)
        found: torch.Tensor = codes * scale
        return found
