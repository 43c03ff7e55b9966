"""A residual network of the size of ResNet-20, with random weights."""

from __future__ import annotations

import torch
from torch import nn


WIDTHS = (16, 32, 64)
BLOCKS = 3
SIZE = 32


class Residual(nn.Module):
    """Two convolutions with batch normalization, and a residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.first_norm(self.first(x)).relu()
        return (self.second_norm(self.second(found)) + self.short(x)).relu()


class ResNet20(nn.Module):
    """A convolution, three stages of three residual blocks, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        blocks, inputs = [], WIDTHS[0]
        for width in WIDTHS:
            for _ in range(BLOCKS):
                blocks.append(Residual(inputs, width))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem_norm(self.stem(x)).relu())
        return self.fc(x.mean((2, 3)))


def resnet20(seed: int = 0) -> ResNet20:
    """The network in evaluation mode.

    Its statistics of batch normalization fit it, and all classes are equally likely.
    """
    torch.manual_seed(seed)
    net = ResNet20().train()
    with torch.no_grad():
        for _ in range(20):
            net(images(64))
        net.eval()
        net.fc.bias -= net(images(256)).mean(0)
    return net


def images(count: int) -> torch.Tensor:
    """Random images that the network takes."""
    return torch.randn(count, 3, SIZE, SIZE)
