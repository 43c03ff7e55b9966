"""Gradients of random projections of a model's outputs: what an error inside it does to them.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of projections of a batch's outputs, each by the tensor's name.

    Args:
        samples:
            How many samples the batch has.
        probes:
            The gradients of each projection; None, or none, in a tensor that does not matter.
    """

    samples: int
    probes: Sequence[Mapping[str, torch.Tensor | None]]

    def moved(self, tensor: str, error: torch.Tensor | NDArray[np.float32]) -> float:
        """How far an error of a tensor moves the outputs, summed over the samples."""
        total = 0.0
        for gradients in self.probes:
            gradient = gradients.get(tensor)
            if gradient is not None and tuple(error.shape) == tuple(gradient.shape):
                total += _squared_product(gradient, torch.as_tensor(error), self.samples)
        return total / max(1, len(self.probes))


def output_gradients(
    outputs: Sequence[torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    *,
    probes: int,
    generator: torch.Generator,
) -> Gradients:
    """The gradients of random projections of a batch's outputs.

    Args:
        outputs:
            The outputs; what is not of floats, or depends on none of the tensors, is left out.
        tensors:
            What they are differentiated by, by name.
        probes:
            How many projections are used.
        generator:
            Of the projections, on the CPU, so that they are the same on every device.
    """
    outputs = [each for each in outputs if each.is_floating_point() and each.requires_grad]
    samples = max((len(output) for output in outputs if output.ndim), default=1)
    points = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
    found: list[Mapping[str, torch.Tensor | None]] = []
    if not outputs or not points:
        return Gradients(samples, found)
    for probe in range(probes):
        projected = torch.stack([_projection(each, generator) for each in outputs]).sum()
        of_probe = torch.autograd.grad(
            projected,
            list(points.values()),
            allow_unused=True,
            retain_graph=probe + 1 < probes,
        )
        found.append(dict(zip(points, of_probe, strict=True)))
    return Gradients(samples, found)


def _projection(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random projection whose expected square is the squared error over the variance, summed
    over the samples.
    """
    exact = torch.nan_to_num(output.detach(), posinf=0.0, neginf=0.0)
    # Per sample: the power that a move is compared with is that of all its values.
    per_sample = exact.numel() / max(1, len(exact) if exact.ndim else 1)
    variance = exact.var(unbiased=False) + _FLOOR * exact.square().mean()
    scale = torch.sqrt(per_sample * variance.clamp(min=1e-30))
    direction = torch.randn(exact.shape, generator=generator, dtype=exact.dtype)
    finite = torch.isfinite(output.detach())
    return (torch.where(finite, output, 0.0) * direction.to(exact.device)).sum() / scale


def _squared_product(gradient: torch.Tensor, error: torch.Tensor, samples: int) -> float:
    """The squared move, summed over the samples; of each it counts as less than one.

    Where the outputs are steep (a logarithm near zero) the linear part says nothing, and outputs
    cannot be further off than wrong.
    """
    product = gradient * error
    if product.ndim and len(product) == samples:
        moves = product.reshape(samples, -1).sum(dim=1).square()
    else:
        moves = product.sum().square().reshape(1) / samples
    moves = torch.nan_to_num(moves, nan=1.0, posinf=1e30)
    total = float((moves / (1 + moves)).sum())
    return total if len(moves) == samples else total * samples
