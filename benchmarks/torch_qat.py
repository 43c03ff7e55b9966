"""What quantization-aware training recovers, and how long it takes: a table for people.

Narrow classifiers of scikit-learn's digits, whose weights of few bits are quantized after
training and in training; means over seeds, since a digit more or less is chance. ``trained on``
is the FP32 model after as many more epochs: what of the gain is not of the quantization.
"""

from __future__ import annotations

import itertools
from pathlib import Path
import time

import numpy as np
from sklearn.datasets import load_digits
import torch
from torch import nn

from optuna_quant.backends.torch import TorchBackend
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig


NETS = ((16, 4), (32, 2))
"""The widths and depths of the classifiers."""
SEEDS = 5
EPOCHS = 40
MORE_EPOCHS = 20
OPTIONS = ("int4/sym", "int4/asym", "int2/sym", "int2/asym")


class Digits:
    """Images of digits, half of them to train with."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(images))
        x = torch.tensor(images[order], dtype=torch.float32) / 16
        y = torch.tensor(labels[order])
        self.train = x[:1200], y[:1200]
        self.test = x[1200:], y[1200:]

    def fit(self, model: nn.Module, lr: float, epochs: int, seed: int) -> float:
        """Train a model; gives the seconds."""
        started = time.perf_counter()
        torch.manual_seed(seed)
        x, y = self.train
        optimizer = torch.optim.Adam(model.parameters(), lr)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(64):
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return time.perf_counter() - started

    def accuracy(self, model: nn.Module) -> float:
        """The part of the digits that a model tells right."""
        x, y = self.test
        with torch.no_grad():
            return float((model(x).argmax(1) == y).double().mean())


def classifier(width: int, depth: int, seed: int) -> nn.Module:
    """A classifier with random weights."""
    torch.manual_seed(seed)
    sizes = [64, *[width] * depth]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def run(cases: Path | None = None) -> None:
    """Print the table."""
    digits = Digits()
    print(
        f"{'width x depth':>14}{'weights':>11}{'FP32':>8}{'trained on':>12}{'after':>8}{'QAT':>8}"
        f"{'recovered':>11}{'FP32 s':>8}{'QAT s':>8}"
    )
    for width, depth in NETS:
        rows = [_measured(digits, width, depth, seed) for seed in range(SEEDS)]
        for label in OPTIONS:
            whole, trained_on, after, trained, seconds, qat_seconds = np.mean(
                [row[label] for row in rows], axis=0
            )
            lost = whole - after
            recovered = f"{(trained - after) / lost:.0%}" if lost > 0 else "-"
            print(
                f"{f'{width} x {depth}':>14}{label:>11}{whole:>8.4f}{trained_on:>12.4f}"
                f"{after:>8.4f}{trained:>8.4f}{recovered:>11}{seconds:>8.1f}{qat_seconds:>8.1f}",
                flush=True,
            )


def _measured(digits: Digits, width: int, depth: int, seed: int) -> dict[str, tuple[float, ...]]:
    """What each option gives: four accuracies, and the seconds of the further epochs."""
    net = classifier(width, depth, seed)
    digits.fit(net, 0.005, EPOCHS, seed)
    backend = TorchBackend(net, digits.train[0][:2], approach="weight_only")
    whole = digits.accuracy(net)
    seconds = digits.fit(net, 0.001, MORE_EPOCHS, seed + 1)
    trained_on = digits.accuracy(net)
    found = {}
    for label in OPTIONS:
        dtype, scheme = label.split("/")
        weight = TensorConfig(dtype, scheme, "per_channel", "rtn")
        option = OpConfig("weight_only", weight=weight)
        config = QuantConfig({op.name: option for op in backend.capability().ops})
        after = digits.accuracy(backend.quantize(config).native())
        module = backend.prepare(config)
        qat_seconds = digits.fit(module, 0.001, MORE_EPOCHS, seed + 1)
        trained = digits.accuracy(backend.finished(config, module).native())
        found[label] = (whole, trained_on, after, trained, seconds, qat_seconds)
    return found
