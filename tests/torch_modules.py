"""Modules to quantize."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """A module in evaluation mode with random weights, and statistics that are not the usual."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            values = torch.rand(tensor.shape, generator=generator)
            spread = 0.5 + values if name.endswith("running_var") else values - 0.5
            tensor.copy_(spread)
    return module.eval()


def samples(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class ConvNet(nn.Module):
    """Convolutions with batch normalization, a residual, a depthwise one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.body(x)) + x)
        x = torch.relu_(self.depthwise(x))
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    """An embedding, attention over any number of tokens, and a layer that is used twice."""

    def __init__(self, *, shared: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.feed = nn.Linear(8, 8)
        self.last = None if shared else nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor) -> dict[str, Any]:
        x = self.embedding(tokens)
        mixed, _ = self.attention(x, x, x)
        last = self.feed if self.last is None else self.last
        x = last(torch.relu(self.feed(x + mixed)))
        return {"logits": x.mean(1), "hidden": x, "layers": 2}


class Transformer(nn.Module):
    """Equal layers of attention and a feed-forward part between a first layer and a classifier."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.layers = nn.ModuleList(TransformerLayer() for _ in range(layers))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class TransformerLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.feed = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        x = x + self.out(mixed[:, 0])
        return x + self.feed(x)


class Residual(nn.Module):
    """A layer whose input, which the caller keeps, is added to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.lin(x) + x
        return y, self.head(y)


def residual() -> nn.Module:
    return randomized(Residual())


def transformer() -> nn.Module:
    return randomized(Transformer())


def convnet() -> nn.Module:
    return randomized(ConvNet())


def attention(*, shared: bool = True) -> nn.Module:
    return randomized(Attention(shared=shared))
