"""Straight-through gradients: what is rounded has the gradient of what was there before."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch


if TYPE_CHECKING:
    from collections.abc import Callable


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        return change(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradients[0], None


def straight_through(
    x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """A changed tensor, through which gradients pass as if it were not changed.

    The estimator of Bengio et al., *Estimating or Propagating Gradients Through Stochastic
    Neurons for Conditional Computation* (2013).

    Args:
        x:
            The tensor.
        change:
            Gives the changed one, a new tensor of the same shape.
    """
    found: torch.Tensor = _StraightThrough.apply(x, change)  # type: ignore[no-untyped-call]
    return found


class StraightThrough(torch.nn.Module):
    """A module through which gradients pass as if it changed nothing.

    Args:
        module:
            The module.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the module gives."""
        return straight_through(x, self.module)
