"""PyTorch's operators of quantized programs in reference form, which an import registers."""

from __future__ import annotations

from typing import Any
from typing import TypeAlias

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401


Operators: TypeAlias = Any
"""Operators as attributes, by name; PyTorch has no public type of it."""

QUANTIZED: Operators = torch.ops.quantized_decomposed
ATEN: Operators = torch.ops.aten
