"""Train the convolutional digits network of this example and export it to ONNX.

Run from a checkout with PyTorch, scikit-learn and onnx installed (about half a
minute on one core)::

    python examples/digits/train.py [--output DIRECTORY] [--seed SEED]

It writes ``model.onnx``, ``calib.npz`` and ``eval.npz``. The committed files were made this way;
using them needs neither PyTorch nor scikit-learn.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
import torch
from torch import Tensor
from torch import nn
from torch.nn import functional


SEED = 2
EPOCHS = 30
BATCH_SIZE = 64
LEARNING_RATE = 0.1
CHANNELS = 64  # of the stem
BLOCKS = ((64, 1), (64, 1), (64, 1), (64, 1), (96, 2), (96, 1))  # (channels, stride)
CLASSES = 10
N_CALIBRATION = 256


class Block(nn.Module):
    """Convolution 3x3, ReLU, BatchNorm, then pointwise 1x1, BatchNorm, ReLU.

    The first BatchNorm stands after its ReLU, so that it folds into the pointwise convolution
    that follows. The quieter a channel of the 3x3 convolution is, the larger the factor by which
    it is scaled up, and with that a column of the pointwise weights: this is where the unequal
    channel ranges of the network come from.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.spatial_norm = nn.BatchNorm2d(out_channels)
        self.pointwise = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H / stride, W / stride]``."""
        x = self.spatial_norm(functional.relu(self.spatial(x)))
        return functional.relu(self.pointwise_norm(self.pointwise(x)))


class DigitsNet(nn.Module):
    """The network as it is trained: a stem, blocks, average pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(CHANNELS)
        blocks = []
        channels = CHANNELS
        for out_channels, stride in BLOCKS:
            blocks.append(Block(channels, out_channels, stride))
            channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[N, 1, 8, 8]`` in [0, 1] to logits ``[N, 10]``."""
        x = functional.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


def load_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split the digits, stratified by class, into training and evaluation halves.

    Returns:
        Training images, training labels, evaluation images, evaluation labels. Images are float32
        ``[N, 1, 8, 8]`` in [0, 1], labels int64 ``[N]``.
    """
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    train_x, eval_x, train_y, eval_y = train_test_split(
        images, labels, test_size=0.5, stratify=labels, random_state=0
    )
    return train_x, train_y, eval_x, eval_y


def train(images: np.ndarray, labels: np.ndarray, seed: int = SEED) -> DigitsNet:
    """Train by SGD without weight decay, at a one-cycle learning rate.

    Args:
        images: Training images, float32 ``[N, 1, 8, 8]``.
        labels: Their classes, int64 ``[N]``.
        seed: Seed of the initial weights, the order of the samples and the shifts.

    Returns:
        The trained network, in evaluation mode.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    network = DigitsNet().train()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    n_batches = len(x) // BATCH_SIZE
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * n_batches
    )
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for batch in order[: n_batches * BATCH_SIZE].split(BATCH_SIZE):
            dx, dy = torch.randint(0, 3, (2,), generator=generator).tolist()
            shifted = functional.pad(x[batch], (1, 1, 1, 1))[:, :, dy : dy + 8, dx : dx + 8]
            loss = functional.cross_entropy(network(shifted), y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def fold_batch_norm(network: DigitsNet) -> nn.Sequential:
    """Return an equal network of biased convolutions, ReLUs, a pooling and a linear layer.

    Folding is all that happens to the trained weights: there is no rescaling between layers.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    scale, shift = _scale_and_shift(network.stem_norm)
    stages["stem"] = _convolution(network.stem, _by_output(network.stem.weight, scale), shift)
    stages["stem_relu"] = nn.ReLU()
    for number, block in enumerate(network.blocks, start=1):
        in_scale, in_shift = _scale_and_shift(block.spatial_norm)
        out_scale, out_shift = _scale_and_shift(block.pointwise_norm)
        weight = block.pointwise.weight
        # A 1x1 convolution has no padding, so the shift before it is a shift of its bias.
        bias = (weight[:, :, 0, 0] @ in_shift) * out_scale + out_shift
        weight = _by_output(weight * in_scale[None, :, None, None], out_scale)
        stages[f"block{number}"] = nn.Sequential(
            OrderedDict(
                spatial=_convolution(block.spatial, block.spatial.weight),
                spatial_relu=nn.ReLU(),
                pointwise=_convolution(block.pointwise, weight, bias),
                pointwise_relu=nn.ReLU(),
            )
        )
    stages["pool"] = nn.AdaptiveAvgPool2d(1)
    stages["flatten"] = nn.Flatten()
    stages["classifier"] = network.classifier
    return nn.Sequential(stages).eval()


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Write a BatchNorm in evaluation mode as ``scale * x + shift``, each ``[channels]``."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _by_output(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale[:, None, None, None]


def _convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Return a convolution shaped as ``like`` with these values."""
    convolution = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,
        like.stride,
        like.padding,
        bias=bias is not None,
    )
    with torch.no_grad():
        convolution.weight.copy_(weight)
        if bias is not None:
            convolution.bias.copy_(bias)
    return convolution


def export(network: nn.Module, path: Path) -> None:
    """Write ``network`` as ONNX opset 17: input ``x`` ``[N, 1, 8, 8]``, output ``logits``."""
    torch.onnx.export(
        network,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["x"],
        output_names=["logits"],
        dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(path)
    for node in model.graph.node:
        # From "/block1/spatial/Conv" to "block1/spatial".
        node.name = node.name.strip("/").rpartition("/")[0]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def predict(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the logits ``[N, 10]`` that ONNX Runtime computes for ``images``."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"x": images})
    return logits


def main() -> None:
    """Train, export, compare the exported model with the trained one, and save the data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # sums in one order, whatever the number of cores
    torch.use_deterministic_algorithms(True)
    train_x, train_y, eval_x, eval_y = load_split()
    network = train(train_x, train_y, arguments.seed)

    path = arguments.output / "model.onnx"
    with torch.no_grad():
        export(fold_batch_norm(network), path)
        trained = network(torch.from_numpy(eval_x)).numpy()
    exported = predict(path, eval_x)
    np.testing.assert_allclose(exported, trained, rtol=1e-3, atol=1e-3)

    calibration = slice(N_CALIBRATION)
    np.savez_compressed(
        arguments.output / "calib.npz", x=train_x[calibration], y=train_y[calibration]
    )
    np.savez_compressed(arguments.output / "eval.npz", x=eval_x, y=eval_y)
    difference = float(np.abs(exported - trained).max())
    accuracy = float(np.mean(exported.argmax(1) == eval_y))
    print(f"{path}: {path.stat().st_size} bytes, FP32 accuracy {accuracy:.4f}")
    print(f"largest difference between ONNX Runtime and PyTorch logits: {difference:.1e}")


if __name__ == "__main__":
    main()
