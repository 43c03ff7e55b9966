"""A small classifier of scikit-learn's digits, and how it is trained and evaluated."""

from __future__ import annotations

from functools import cache
import itertools
from typing import Any

from sklearn.datasets import load_digits
import torch
from torch import nn


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images and labels to train with, and those to evaluate with."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order.split([1200, 597])
    return x[train], y[train], x[test], y[test]


class Digits(nn.Module):
    """Narrow and deep, so that four bits are few."""

    def __init__(self, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        sizes = [64, *[width] * depth]
        layers = [
            layer
            for inputs, outputs in itertools.pairwise(sizes)
            for layer in (nn.Linear(inputs, outputs), nn.ReLU())
        ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def fit(model: nn.Module, lr: float, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(epochs):
        one_epoch(model, optimizer)


def one_epoch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y, _, _ = digits()
    for batch in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(model: Any) -> float:
    _, _, x, y = digits()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def trained_net(epochs: int = 25) -> nn.Module:
    torch.manual_seed(0)
    net = Digits()
    fit(net, 0.005, epochs)
    return net
