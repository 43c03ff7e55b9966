"""What stands in the place of a module: called as it is, with nothing of its own to train."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch


class CalledModule(torch.nn.Module):
    """A quantized model as a module, always in evaluation mode.

    Its one parameter is empty: functions that ask for the device or the dtype of a model
    (``next(model.parameters()).device``) get an answer. Outputs are on the device of the first
    tensor that it is called with, so it need not be moved; other floats it does not take.
    """

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """An empty parameter, on the CPU."""
        name = f"{prefix}.empty" if prefix else "empty"
        yield name, torch.nn.Parameter(torch.empty(0), requires_grad=False)

    def train(self, mode: bool = True) -> CalledModule:
        """Nothing changes: a quantized model has no training mode."""
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> CalledModule:
        dtype = fn(torch.empty(0)).dtype
        if dtype != torch.float32:
            raise TypeError(
                f"A quantized model cannot be made one of {str(dtype).removeprefix('torch.')}: "
                "its arithmetic is that of its configuration. Options in bf16 are part of the "
                "tuning space."
            )
        return self
