"""What ``torch_qat`` trains: small nets of its own, or the cases as modules."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
import itertools
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
import torch
from torch import nn

from benchmarks.cases import Case
from benchmarks.cases import load_case
from benchmarks.torch_modules import NAMES
from benchmarks.torch_modules import module_of
from optuna_quant.backends.torch import TorchBackend


NETS = ((16, 4), (32, 2))
"""The widths and depths of the own nets."""
NET_OPTIONS = ("int4/sym", "int4/asym", "int2/sym", "int2/asym")
CASE_OPTIONS = ("int4/sym", "int4/asym", "int3/asym", "int2/asym", "int8/channel", "int8/tensor")
RATES = {
    "digits_tiny": 0.0003,
    "digits_dscnn_uneq": 0.003,
    "digits_vit_out": 0.0003,
    "fashion_mobilenet": 0.001,
    "fashion_vit": 0.0001,
}
"""Of 0.0001 to 0.01 those with which the loss on the training samples became least."""
_EPOCHS = 40
_EVALUATED = 250


@dataclass(frozen=True)
class Data:
    """Samples, and what a model should give for each: its class, or a probability per class."""

    x: torch.Tensor
    y: torch.Tensor


@dataclass(frozen=True)
class Subject:
    """A trained module, and what it is trained further with.

    Args:
        module:
            The module.
        backend:
            Quantizes it.
        train:
            What models are trained with.
        test:
            What they are measured with.
        rate:
            The learning rate at the start.
    """

    module: nn.Module
    backend: TorchBackend
    train: Data
    test: Data
    rate: float

    def accuracy(self, model: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """The part of the test samples whose class is right."""
        with torch.no_grad():
            classes = torch.cat([model(x).argmax(1) for x in self.test.x.split(_EVALUATED)])
        return float((classes == self.test.y).double().mean())


@dataclass(frozen=True)
class Kind:
    """What a row of the table is about.

    Args:
        name:
            What it is called.
        options:
            In what its ops are quantized.
        subject:
            Gives the subject of a seed.
    """

    name: str
    options: tuple[str, ...]
    subject: Callable[[int], Subject]


def fit(model: nn.Module, data: Data, rate: float, *, epochs: int, seed: int) -> None:
    """Train a model, with a rate that falls to zero."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.x)).split(64):
            loss = nn.functional.cross_entropy(model(data.x[batch]), data.y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


def own_nets() -> Iterator[Kind]:
    """Narrow classifiers of scikit-learn's digits, another one for each seed."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.tensor(images[order], dtype=torch.float32) / 16
    y = torch.tensor(labels[order])
    train, test = Data(x[:1200], y[:1200]), Data(x[1200:], y[1200:])

    def kind(width: int, depth: int) -> Kind:
        def subject(seed: int) -> Subject:
            net = _classifier(width, depth, seed)
            fit(net, train, 0.005, epochs=_EPOCHS, seed=seed)
            backend = TorchBackend(net, train.x[:2], approach="weight_only")
            return Subject(net, backend, train, test, rate=0.001)

        return Kind(f"{width} x {depth}", NET_OPTIONS, subject)

    return (kind(*each) for each in NETS)


def cases_as_modules(folder: Path) -> Iterator[Kind]:
    """The cases, each with the weights that it has, whatever the seed is.

    They have no training data. Of scikit-learn's digits there are those that the case is not
    evaluated with, of Fashion-MNIST the calibration samples. Models are trained towards what the
    module itself gives for these, without labels, so that nothing is gained that is not of the
    quantization; with ``LABELS=1`` in the environment towards the labels.
    """
    only = os.environ.get("CASE", ",".join(NAMES)).split(",")
    for name in NAMES:
        if name in only:
            subject = _case(folder / name)
            yield Kind(name, CASE_OPTIONS, lambda seed, it=subject: it)  # type: ignore[misc]


def _case(folder: Path) -> Subject:
    case, module = load_case(folder), module_of(folder)
    train = _training_data(case, folder)
    if os.environ.get("LABELS") != "1":
        with torch.no_grad():
            given = [module(each).softmax(1) for each in train.x.split(_EVALUATED)]
        train = Data(train.x, torch.cat(given))
    calibration = torch.from_numpy(case.calibration)
    return Subject(
        module,
        TorchBackend(module, calibration[:2], approach="qat", calibration_data=calibration),
        train,
        _data(case.x, case.y),
        RATES[case.name],
    )


def _training_data(case: Case, folder: Path) -> Data:
    if not case.name.startswith("digits"):
        return _data(case.calibration, np.load(folder / "calib.npz")["y"])
    images, labels = load_digits(return_X_y=True)
    images = (images.astype(np.float32) / 16).reshape(-1, 1, 8, 8)
    evaluated = {each.tobytes() for each in case.x}
    others = [each.tobytes() not in evaluated for each in images]
    return _data(images[others], labels[others])


def _data(x: np.ndarray, y: np.ndarray) -> Data:
    return Data(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))


def _classifier(width: int, depth: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise([64, *[width] * depth]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))
