"""A decoder of the Llama family in PyTorch, whose products are computed with 8 bits on demand.

Weights have a scale for each output, activations one range each, that of the samples which the
decoder was made with: integers simulated in floats, without a runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from benchmarks.language.decoder import DecoderShape
from benchmarks.language.decoder import Weights


_ATTENTION = ("query", "key", "value", "output")
_FEED_FORWARD = ("gate", "up", "down")


class TorchDecoder:
    """The decoder.

    Args:
        shape:
            How large it is.
        weights:
            Gives the weights.
        calibration:
            Tokens, each of shape ``(1, length)``.

    Attributes:
        blocks:
            The names of the products of each layer.
    """

    def __init__(
        self, shape: DecoderShape, weights: Weights, calibration: Sequence[np.ndarray]
    ) -> None:
        width, kv = shape.width, shape.kv_heads * shape.head_width
        sizes = {f"attention.{part}": (width, width) for part in _ATTENTION}
        sizes |= {f"attention.{part}": (kv, width) for part in ("key", "value")}
        sizes |= {f"feed_forward.{part}": (shape.hidden, width) for part in _FEED_FORWARD}
        sizes["feed_forward.down"] = (width, shape.hidden)
        layers = range(shape.layers)
        self.blocks = [[f"layers.{layer}.{part}" for part in sizes] for layer in layers]
        wanted: dict[str, tuple[int, ...]] = {"embedding": (shape.vocabulary, width)}
        wanted["norm"] = (width,)
        for layer in layers:
            wanted |= {f"layers.{layer}.{part}": size for part, size in sizes.items()}
            for part in ("attention_norm", "feed_forward_norm"):
                wanted[f"layers.{layer}.{part}"] = (width,)
        self._shape = shape
        self._weights = {n: torch.tensor(weights(n, size)) for n, size in wanted.items()}
        self._rounded = {op: _rounded(self._weights[op]) for ops in self.blocks for op in ops}
        self._ranges: dict[str, tuple[float, float]] = {}
        for tokens in calibration:
            self._run(tokens, self._calibrated)

    @torch.no_grad()
    def logits(self, tokens: np.ndarray, quantized: Collection[str]) -> np.ndarray:
        """The logits, of shape ``(batch, length, vocabulary)``.

        Args:
            tokens:
                Of shape ``(batch, length)``.
            quantized:
                The names of the products with 8 bits.
        """

        def product(op: str, x: torch.Tensor) -> torch.Tensor:
            if op not in quantized:
                return functional.linear(x, self._weights[op])
            least, most = self._ranges[op]
            scale = (most - least) / 255
            zero = round(-least / scale)
            x = (torch.clamp(torch.round(x / scale) + zero, 0, 255) - zero) * scale
            return functional.linear(x, self._rounded[op])

        found: np.ndarray = self._run(tokens, product).numpy()
        return found

    def _calibrated(self, op: str, x: torch.Tensor) -> torch.Tensor:
        least, most = self._ranges.get(op, (0.0, 0.0))
        self._ranges[op] = min(least, float(x.min())), max(most, float(x.max()))
        return functional.linear(x, self._weights[op])

    @torch.no_grad()
    def _run(
        self, tokens: np.ndarray, product: Callable[[str, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        shape, weights = self._shape, self._weights
        size = shape.head_width
        steps = shape.rope_base ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(tokens.shape[1])[:, None] * torch.cat([steps, steps])

        def heads(op: str, x: torch.Tensor) -> torch.Tensor:
            x = product(op, x)
            return x.view(*tokens.shape, -1, size).transpose(1, 2)

        def turned(x: torch.Tensor) -> torch.Tensor:
            first, second = x.chunk(2, dim=-1)
            return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()

        def norm(name: str, x: torch.Tensor) -> torch.Tensor:
            return functional.rms_norm(x, (shape.width,), weights[name], shape.epsilon)

        h = weights["embedding"][torch.tensor(tokens)]
        for layer in range(shape.layers):
            name = f"layers.{layer}"
            x = norm(f"{name}.attention_norm", h)
            query = turned(heads(f"{name}.attention.query", x))
            key = turned(heads(f"{name}.attention.key", x))
            value = heads(f"{name}.attention.value", x)
            x = functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=True
            )
            x = x.transpose(1, 2).reshape(*tokens.shape, shape.width)
            h = h + product(f"{name}.attention.output", x)
            x = norm(f"{name}.feed_forward_norm", h)
            gate = functional.silu(product(f"{name}.feed_forward.gate", x))
            x = gate * product(f"{name}.feed_forward.up", x)
            h = h + product(f"{name}.feed_forward.down", x)
        return norm("norm", h) @ weights["embedding"].T


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return torch.round(weight / scale) * scale
