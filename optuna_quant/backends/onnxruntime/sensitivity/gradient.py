"""Sensitivity by gradients: what the model's outputs make of the error that each op's quantization
brings.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.counts import check_positive
from optuna_quant.backends.onnxruntime.sensitivity.mse import MSESensitivity
from optuna_quant.data.outputs import choose_outputs


try:
    import torch
except ImportError as error:
    raise ImportError(
        'Gradient sensitivity needs the package torch: pip install "optuna_quant[torch]".'
    ) from error

from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph
from optuna_quant.backends.onnxruntime.torch_graph.node import to_tensor


if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import Shown
    from optuna_quant.backends.onnxruntime.sensitivity.side_by_side import SideBySide
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp


_FLOOR = 1e-3


class GradientSensitivity(MSESensitivity):
    """How far the quantization of each op moves the model's outputs, to first order.

    One pass over the samples runs the FP32 graph and, beside it, a quantized copy of each op (see
    :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`), which gives the
    error of each op's own output; one backward pass per probe gives the gradient there of a random
    projection of the model's outputs. The square of their product, averaged over samples and
    probes, is the squared move of the outputs that this error alone brings about, as far as it is
    linear: the Gauss-Newton (Fisher) form of the second-order Taylor term, for the squared error
    of the outputs (Hassibi and Stork, "Second order derivatives for network pruning", 1992). It
    is divided by the variance of the outputs.

    So scores of different layers, and of different options of one op, are in one unit and can be
    added. They need no labels.

    Args:
        outputs:
            The names of the outputs that are looked at; None for all.
        probes:
            How many random projections are used for each batch.
        seed:
            Of the projections.
        **kwargs:
            See :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`.

    Raises:
        UnsupportedOperatorError:
            If the model has operators without a torch counterpart.
        ValueError:
            If ``probes`` is not a positive number.
    """

    what = "the effect of their errors on the model's outputs"

    def __init__(
        self,
        *args: Any,
        outputs: Sequence[str] | None = None,
        probes: int = 4,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("probes", probes)
        self._outputs = None if outputs is None else tuple(outputs)
        self._probes = probes
        self._seed = seed
        self.key = f"gradient, {self.key}, probes={probes}, seed={seed}"
        if self._outputs is not None:
            self.key += f", outputs={list(self._outputs)}"

    def _set_graph(self, graph: Graph, static: Mapping[str, StaticOp]) -> None:
        super()._set_graph(graph, static)
        self._torch = TorchGraph(graph.to_model(), base_dir=graph.base_dir)

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        """As that of :class:`~optuna_quant.backends.onnxruntime.sensitivity.mse.MSESensitivity`.

        A backward pass counts as one.
        """
        samples = self._samples + (self._samples_of_weights if with_weights else 0)
        gradients = float(samples * (1 + self._probes))
        return super().passes(configs, with_weights=with_weights) + gradients

    def with_samples(self, samples: int) -> Self:
        """The same with at most so many samples, and one probe.

        Of passes that are counted, those over more samples say more than those with more probes.
        """
        found = super().with_samples(samples)
        found._probes = 1
        return found

    def _errors(self, pairs: Sequence[SideBySide]) -> list[dict[Shown, float]]:
        sums = [dict.fromkeys(pair.copies, 0.0) for pair in pairs]
        exact = list(dict.fromkeys(shown.tensor for pair in pairs for shown in pair.copies))
        if not exact:
            return sums
        sessions = [self._tapped(pair) for pair in pairs]
        widest = max(range(len(pairs)), key=lambda i: len(pairs[i].copies))
        samples = 0
        generator = torch.Generator().manual_seed(self._seed)
        for feed in self._feeds(sessions[widest], pairs[widest].tensors):
            gradients = self._gradients(feed, exact, generator)
            samples += gradients.samples
            for pair, session, of_pair in zip(pairs, sessions, sums, strict=True):
                values = dict(zip(pair.tensors, session.run(pair.tensors, feed), strict=True))
                for shown, copy in pair.copies.items():
                    error = _difference(values[shown.tensor], values.pop(copy))
                    of_pair[shown] += gradients.moved(shown.tensor, error)
        return [{key: value / samples for key, value in of_pair.items()} for of_pair in sums]

    def _gradients(
        self, feed: Feed, tensors: Sequence[str], generator: torch.Generator
    ) -> _Gradients:
        """The gradients of random projections of the outputs in these tensors."""
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
                return _Gradients(samples, probes)
            for probe in range(self._probes):
                projected = torch.stack([_projection(o, generator) for o in outputs]).sum()
                of_probe = torch.autograd.grad(
                    projected,
                    list(points.values()),
                    allow_unused=True,
                    retain_graph=probe + 1 < self._probes,
                )
                probes.append(dict(zip(points, of_probe, strict=True)))
        return _Gradients(samples, probes)


@dataclass(frozen=True, eq=False)
class _Gradients:
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


def _difference(exact: NDArray[Any], actual: NDArray[Any]) -> NDArray[np.float32]:
    if exact.shape != actual.shape:
        return np.asarray(exact, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.asarray(actual - exact, dtype=np.float32), posinf=0.0, neginf=0.0)


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
