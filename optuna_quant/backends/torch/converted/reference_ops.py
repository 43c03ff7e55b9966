"""PyTorch's operators of quantized programs in reference form, which an import registers."""

from __future__ import annotations

from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401


QUANTIZED: Any = torch.ops.quantized_decomposed
ATEN: Any = torch.ops.aten
