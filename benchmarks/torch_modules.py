"""The cases as PyTorch modules, with the weights of their ONNX models."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper
import torch
from torch import nn


class Convolutions(nn.Module):
    """A convolution, an inverted bottleneck or a classifier after the other."""

    def __init__(self, layers: list[nn.Module], features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(features, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layers(x).mean((2, 3)))


class Bottleneck(nn.Module):
    """A depthwise-separable bottleneck, with a residual where the shapes allow one."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, stride: int, act: type[nn.Module]
    ) -> None:
        super().__init__()
        widen = [nn.Conv2d(inputs, hidden, 1), act()] if hidden != inputs else []
        self.layers = nn.Sequential(
            *widen,
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden),
            act(),
            nn.Conv2d(hidden, outputs, 1),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.layers(x)
        return x + found if self.adds else found


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.f1, self.f2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.heads = heads
        self.scale = (width // heads) ** -0.5  # A number, which torch.ao's FX mode takes.

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(self.n1(x)).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = parts.transpose(1, 3).unbind(2)
        # PyTorch 2.13 fails to compile keys that one permutation has transposed.
        scores = q @ k.transpose(-2, -1) * self.scale
        mixed = (scores.softmax(-1) @ v).transpose(1, 2)
        x = x + self.o(mixed.reshape(batch, tokens, width))
        return x + self.f2(nn.functional.gelu(self.f1(self.n2(x))))


class Transformer(nn.Module):
    """A small vision transformer."""

    def __init__(self, width: int, hidden: int, heads: int, *, patch: int, depth: int) -> None:
        super().__init__()
        tokens = {2: 16, 7: 17}[patch]
        self.cls = nn.Parameter(torch.zeros(1, 1, width)) if patch == 7 else None
        self.pos = nn.Parameter(torch.zeros(1, tokens, width))
        self.pe = nn.Conv2d(1, width, patch, patch)
        self.blocks = nn.Sequential(*(Block(width, hidden, heads) for _ in range(depth)))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pe(x).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.pos))
        return self.fc(x.mean(1) if self.cls is None else x[:, 0])


def _digits_tiny() -> nn.Module:
    conv = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 1, 1)
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(conv[0], relu, pool, conv[1], relu, pool, nn.Flatten(), nn.Linear(64, 10))


def _digits_dscnn() -> nn.Module:
    widths = [(8, 32, 8), (8, 32, 12), (12, 48, 12), (12, 48, 16), (16, 64, 16)]
    blocks = [Bottleneck(i, h, o, 1, nn.ReLU) for i, h, o in widths]
    stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU())
    head = nn.Sequential(nn.Conv2d(16, 48, 1), nn.ReLU())
    return Convolutions([stem, *blocks[:2], nn.MaxPool2d(2), *blocks[2:], head], 48)


def _fashion_mobilenet() -> nn.Module:
    widths = [
        *((16, 16, 8, 1), (8, 48, 12, 1), (12, 72, 16, 2), (16, 96, 16, 1), (16, 96, 32, 1)),
        *((32, 192, 32, 1), (32, 192, 48, 1), (48, 288, 48, 1)),
    ]
    blocks = [Bottleneck(*each, nn.ReLU6) for each in widths]
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU6())
    head = nn.Sequential(nn.Conv2d(48, 256, 1), nn.ReLU6())
    return Convolutions([stem, *blocks, head], 256)


_MODULES = {
    "digits_tiny": _digits_tiny,
    "digits_dscnn_uneq": _digits_dscnn,
    "digits_vit_out": lambda: Transformer(48, 96, 4, patch=2, depth=3),
    "fashion_mobilenet": _fashion_mobilenet,
    "fashion_vit": lambda: Transformer(96, 384, 4, patch=7, depth=4),
}
NAMES = tuple(_MODULES)


def module_of(case: Path) -> nn.Module:
    """The module of a case, in evaluation mode.

    Args:
        case:
            The folder with its ``model.onnx``.
    """
    module = _MODULES[case.name]()
    model = onnx.load(case / "model.onnx")
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    products = [
        (node, arrays[node.input[1]])
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in arrays
    ]
    layers = [m for m in _in_order(module) if isinstance(m, (nn.Conv2d, nn.Linear))]
    biases = {name: array for name, array in arrays.items() if name.endswith(".bias")}
    assert len(layers) == len(products), (len(layers), len(products))
    with torch.no_grad():
        for layer, (node, weight) in zip(layers, products, strict=True):
            weight = weight.T if node.op_type == "MatMul" else weight
            layer.weight.copy_(torch.from_numpy(weight.copy()))
            path = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            bias = arrays[node.input[2]] if len(node.input) > 2 else biases[f"{path}.bias"]
            layer.bias.copy_(torch.from_numpy(bias.copy()))
        norms = [m for m in _in_order(module) if isinstance(m, nn.LayerNorm)]
        named = [n for n in arrays if n.rpartition(".")[0].rpartition(".")[2][:1] == "n"]
        weights = [n for n in named if n.endswith(".weight")]
        for norm, name in zip(norms, weights, strict=True):
            norm.weight.copy_(torch.from_numpy(arrays[name].copy()))
            norm.bias.copy_(torch.from_numpy(arrays[name[: -len("weight")] + "bias"].copy()))
        for name in ("cls", "pos"):
            if name in arrays:
                getattr(module, name).copy_(torch.from_numpy(arrays[name].copy()))
    return module.eval()


def _in_order(module: nn.Module) -> list[nn.Module]:
    found = []
    for each in module.modules():
        if isinstance(each, Block):
            found += [each.n1, each.qkv, each.o, each.n2, each.f1, each.f2]
        elif not any(each in vars(b)["_modules"].values() for b in _blocks(module)):
            found.append(each)
    return found


def _blocks(module: nn.Module) -> list[nn.Module]:
    return [each for each in module.modules() if isinstance(each, Block)]
