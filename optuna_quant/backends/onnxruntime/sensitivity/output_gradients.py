"""Gradients of a model's outputs in tensors inside it, by torch, which this module imports."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_quant.backends.onnxruntime.torch_graph.node import to_tensor
from optuna_quant.data.outputs import choose_outputs


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph


_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of projections of a batch's outputs, each by the tensor's name."""

    samples: int
    probes: Sequence[Mapping[str, torch.Tensor | None]]

    def moved(self, tensor: str, error: NDArray[np.float32]) -> float:
        """How far an error of a tensor moves the outputs, summed over the samples."""
        total = 0.0
        for gradients in self.probes:
            gradient = gradients.get(tensor)
            if gradient is not None and error.shape == tuple(gradient.shape):
                total += _squared_product(gradient, error, self.samples)
        return total / max(1, len(self.probes))


class OutputGradients:
    """Takes the gradients of random projections of a model's outputs, batch by batch.

    Args:
        graph:
            The model.
        outputs:
            The names of the outputs that are looked at; None for all.
        probes:
            How many projections are used for each batch.
        seed:
            The seed of the projections.
    """

    def __init__(
        self, graph: TorchGraph, *, outputs: tuple[str, ...] | None, probes: int, seed: int
    ) -> None:
        self._torch = graph
        self._outputs = outputs
        self._probes = probes
        self._generator = torch.Generator().manual_seed(seed)

    def of(self, feed: Feed, tensors: Sequence[str]) -> Gradients:
        """The gradients in these tensors, of one batch."""
        inputs = {name: to_tensor(np.asarray(v), self._torch.dtype) for name, v in feed.items()}
        with torch.inference_mode(False), torch.enable_grad():
            found = self._torch.run(inputs, tensors)
            names = list(self._torch.outputs)
            if self._outputs is not None:
                names = list(choose_outputs(self._outputs, names))
            outputs = [found[n] for n in names if found[n].is_floating_point()]
            outputs = [output for output in outputs if output.requires_grad]
            samples = max((len(output) for output in outputs if output.ndim), default=1)
            points = {name: found[name] for name in tensors if found[name].requires_grad}
            probes: list[Mapping[str, torch.Tensor | None]] = []
            if not outputs or not points:
                return Gradients(samples, probes)
            for probe in range(self._probes):
                projected = torch.stack([_projection(o, self._generator) for o in outputs]).sum()
                of_probe = torch.autograd.grad(
                    projected,
                    list(points.values()),
                    allow_unused=True,
                    retain_graph=probe + 1 < self._probes,
                )
                probes.append(dict(zip(points, of_probe, strict=True)))
        return Gradients(samples, probes)


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
    return (torch.where(finite, output, 0.0) * direction).sum() / scale


def _squared_product(gradient: torch.Tensor, error: NDArray[np.float32], samples: int) -> float:
    """The squared move, summed over the samples; of each it counts as less than one.

    Where the outputs are steep (a logarithm near zero) the linear part says nothing, and outputs
    cannot be further off than wrong.
    """
    product = gradient * torch.from_numpy(error)
    if product.ndim and len(product) == samples:
        moves = product.reshape(samples, -1).sum(dim=1).square()
    else:
        moves = product.sum().square().reshape(1) / samples
    moves = torch.nan_to_num(moves, nan=1.0, posinf=1e30)
    total = float((moves / (1 + moves)).sum())
    return total if len(moves) == samples else total * samples
