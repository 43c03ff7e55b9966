"""Sensitivity by gradients: what the model's outputs make of the error that each op's quantization
brings.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from threading import Lock
import time
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.onnxruntime.sensitivity import MSESensitivity
from optuna_quant.output_choice import choose_outputs


try:
    import torch
except ImportError as error:
    raise ImportError(
        'Gradient sensitivity needs the package torch: pip install "optuna_quant[torch]".'
    ) from error

from optuna_quant.backends.onnxruntime.torch_graph import TorchGraph
from optuna_quant.backends.onnxruntime.torch_node import to_tensor


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.feeds import Feed
    from optuna_quant.backends.onnxruntime.side_by_side import SideBySide
    from optuna_quant.config import QuantConfig


_logger = get_logger(__name__)

_FLOOR = 1e-3


class GradientSensitivity(MSESensitivity):
    """How far the quantization of each op moves the model's outputs, to first order.

    One pass over the samples runs the FP32 graph and, beside it, a quantized copy of each op (see
    :class:`~optuna_quant.backends.onnxruntime.sensitivity.MSESensitivity`), which gives the error
    of each op's own output; one backward pass per probe gives the gradient there of a random
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
            See :class:`~optuna_quant.backends.onnxruntime.sensitivity.MSESensitivity`.

    Raises:
        UnsupportedOperatorError:
            If the model has operators without a torch counterpart.
        ValueError:
            If ``probes`` is not a positive number.
    """

    def __init__(
        self,
        *args: Any,
        outputs: Sequence[str] | None = None,
        probes: int = 4,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
            raise ValueError(f"probes must be a positive integer, but got {probes!r}.")
        self._outputs = None if outputs is None else tuple(outputs)
        self._probes = probes
        self._seed = seed
        self.key = f"gradient, {self.key}, probes={probes}, seed={seed}"
        if self._outputs is not None:
            self.key += f", outputs={list(self._outputs)}"
        self._torch = TorchGraph(self._graph.to_model(), base_dir=self._graph.base_dir)
        self._lock = Lock()

    def _errors(self, pair: SideBySide) -> dict[tuple[str, str], float]:
        if not pair.copies:
            return {}
        session = self._tapped(pair)
        exact = list(dict.fromkeys(tensor for _, tensor in pair.copies))
        sums = dict.fromkeys(pair.copies, 0.0)
        samples = 0
        generator = torch.Generator().manual_seed(self._seed)
        for feed in self._feeds(session, pair.tensors):
            values = dict(zip(pair.tensors, session.run(pair.tensors, feed), strict=True))
            errors = {
                key: _difference(values[key[1]], values[copy]) for key, copy in pair.copies.items()
            }
            size, moved = self._moves(feed, exact, errors, generator)
            samples += size
            for key, value in moved.items():
                sums[key] += value
        return {key: value / samples for key, value in sums.items() if np.isfinite(value)}

    def _moves(
        self,
        feed: Feed,
        tensors: Sequence[str],
        errors: Mapping[tuple[str, str], NDArray[np.float32]],
        generator: torch.Generator,
    ) -> tuple[int, dict[tuple[str, str], float]]:
        """The number of samples, and by how much each error moves the outputs, summed over them."""
        inputs = {name: to_tensor(np.asarray(v), self._torch.dtype) for name, v in feed.items()}
        with torch.inference_mode(False), torch.enable_grad():
            found = self._torch.run(inputs, tensors)
            names = list(self._torch.outputs)
            if self._outputs is not None:
                names = list(choose_outputs(self._outputs, names))
            outputs = [found[n] for n in names if found[n].is_floating_point()]
            size = max((len(output) for output in outputs if output.ndim), default=1)
            points = {name: found[name] for name in tensors if found[name].requires_grad}
            moved = dict.fromkeys(errors, 0.0)
            for probe in range(self._probes):
                projected = sum(_projection(output, generator) for output in outputs)
                gradients = torch.autograd.grad(
                    projected,
                    list(points.values()),
                    allow_unused=True,
                    retain_graph=probe + 1 < self._probes,
                )
                of = dict(zip(points, gradients, strict=True))
                for key, error in errors.items():
                    gradient = of.get(key[1])
                    if gradient is not None and error.shape == tuple(gradient.shape):
                        moved[key] += _squared_product(gradient, error, size) / self._probes
        return size, moved


def _difference(exact: NDArray[Any], actual: NDArray[Any]) -> NDArray[np.float32]:
    if exact.shape != actual.shape:
        return np.asarray(exact, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.asarray(actual - exact, dtype=np.float32), posinf=0.0, neginf=0.0)


def _projection(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random projection whose expected square is the squared error over the variance, summed
    over the samples."""
    exact = torch.nan_to_num(output.detach(), posinf=0.0, neginf=0.0)
    # Per sample: the power that a move is compared with is that of all its values.
    per_sample = exact.numel() / max(1, len(exact) if exact.ndim else 1)
    variance = exact.var(unbiased=False) + _FLOOR * exact.square().mean()
    scale = torch.sqrt(per_sample * variance.clamp(min=1e-30))
    direction = torch.randn(exact.shape, generator=generator, dtype=exact.dtype)
    finite = torch.isfinite(output.detach())
    return (torch.where(finite, output, 0.0) * direction).sum() / scale


def _squared_product(gradient: torch.Tensor, error: NDArray[np.float32], size: int) -> float:
    product = gradient * torch.from_numpy(error)
    if product.ndim and len(product) == size:
        return float(product.reshape(size, -1).sum(dim=1).square().sum())
    return float(product.sum().square())
