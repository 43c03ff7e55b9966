"""Small modules with all forms of ops, and the models that the tests compare."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import TorchModel
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


class Convolutions(nn.Module):
    """Batch normalization, depthwise and grouped convolutions, in-place ops, a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 32, 3, groups=2)
        self.head = nn.Linear(32, 10)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.relu(x + self.relu(self.depthwise(x)))
        features = self.relu(self.grouped(x)).mean((2, 3))
        return {"scores": self.head(features), "rest": (features,)}


class OtherConvolutions(nn.Module):
    """One and three dimensions, transposed ones with and without groups."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(4, 8, 3)
        self.back = nn.ConvTranspose1d(8, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.volume = nn.Conv3d(1, 4, 3)
        self.grouped_back = nn.ConvTranspose2d(4, 8, 2, groups=2)
        self.last_norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.back(self.line(x).relu()))
        x = self.volume(x.reshape(-1, 1, 4, 4, 4)).mean(2)
        return self.last_norm(self.grouped_back(x)).flatten(1)


class Chain(nn.Module):
    """Linear layers, one of them without a bias."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.a = nn.Linear(width, width)
        self.b = nn.Linear(width, width, bias=False)
        self.c = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(nn.functional.gelu(self.b(self.a(x).relu())))


class Block(nn.Module):
    """An embedding and a transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.norm = nn.LayerNorm(64)
        self.up = nn.Linear(64, 128)
        self.down = nn.Linear(128, 64)
        self.head = nn.Linear(64, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return self.head(x.mean(1))


class Tied(nn.Module):
    """A module used twice, a weight of two modules, an in-place op, a tuple of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(64, 64)
        self.table = nn.Embedding(20, 64)
        self.head = nn.Linear(64, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(
        self, ids: torch.Tensor, scale: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.twice(self.twice(self.table(ids)).relu_())
        if scale is not None:
            x = x * scale
        return self.head(x), x


class Written(nn.Module):
    """A tensor that is read before and after it is written to, and through a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(16, 16)
        self.after = nn.Linear(16, 16)
        self.through_view = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        view = x.view(-1, 4, 4)
        first = self.before(x)
        x.relu_()
        return self.after(x) + first + self.through_view(view).flatten(1)


class Pooled(nn.Module):
    """Quantized ops with operators between them that only move values."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(3, 8, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)
        self.d = nn.Linear(8 * 16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.c(x.permute(0, 1, 3, 2)).relu()
        return self.d(nn.functional.max_pool2d(x, 2).flatten(1))


class Products(nn.Module):
    """Products with parameters and of activations, in all forms, and sums in place."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.randn(16, 32) / 4)
        self.shift = nn.Parameter(torch.randn(32))
        self.last = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.addmm(self.shift, x, self.factor)
        wide += x @ self.factor
        narrow = self.last(wide.relu())
        narrow += torch.mm(wide, self.factor.t())
        scores = torch.addmm(narrow, torch.mm(narrow, x.t()), x, beta=0.5, alpha=0.25)
        three = scores[None]
        return torch.baddbmm(three, three, three.mT @ three).squeeze(0)


class Rearranged(nn.Module):
    """What Keras makes of layers: channels last, weights rearranged, biases added afterwards."""

    def __init__(self) -> None:
        super().__init__()
        variables = {
            "net/first/kernel": torch.randn(3, 3, 3, 16) / 4,
            "net/first/bias": torch.randn(16),
            "net/second/kernel": torch.randn(3, 3, 16, 8) / 8,
            "net/second/bias": torch.randn(8),
            "net/head/kernel": torch.randn(8, 10) / 2,
            "net/head/bias": torch.randn(10),
        }
        self.variables = nn.ParameterDict(variables)
        # Taken out of the parameters, as Keras does.
        self.values = {name: each.detach() for name, each in self.variables.items()}

    def layer(self, name: str, x: torch.Tensor, padding: int) -> torch.Tensor:
        kernel = self.values[f"net/{name}/kernel"].to(torch.float32).permute(3, 2, 0, 1)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        found = nn.functional.conv2d(x.permute(0, 3, 1, 2).contiguous(), kernel, padding=padding)
        bias = self.values[f"net/{name}/bias"].reshape(1, 1, 1, -1)
        return found.permute(0, 2, 3, 1).to(torch.float32) + bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.layer("first", x, 1).permute(0, 3, 1, 2), 2).relu()
        x = nn.functional.pad(x, (0, 1, 0, 1)).permute(0, 2, 3, 1)
        x = self.layer("second", x, 0).relu().mean((1, 2))
        return x @ self.values["net/head/kernel"] + self.values["net/head/bias"]


class Bags(nn.Module):
    """Embeddings of bags in all modes, with and without an index that counts for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.EmbeddingBag(50, 40, mode="mean")
        self.sum = nn.EmbeddingBag(50, 40, mode="sum", padding_idx=3)
        self.most = nn.EmbeddingBag(50, 40, mode="max", padding_idx=0)
        self.head = nn.Linear(40, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        weights = ids.float() / 50
        starts = torch.arange(0, ids.numel(), ids.shape[1])
        summed = self.sum(ids, per_sample_weights=weights)
        return self.head(self.mean(ids.flatten(), starts) + summed + self.most(ids))


class Case(NamedTuple):
    """A module, and what makes samples for it."""

    make: Callable[[], nn.Module]
    samples: Callable[[int], torch.Tensor]


def _ids(high: int) -> Callable[[int], torch.Tensor]:
    return lambda samples: torch.randint(0, high, (samples, 7))


CASES = {
    "convolutions": Case(Convolutions, lambda n: torch.randn(n, 3, 20, 20)),
    "other convolutions": Case(OtherConvolutions, lambda n: torch.randn(n, 4, 16)),
    "chain": Case(Chain, lambda n: torch.randn(n, 64)),
    "block": Case(Block, _ids(50)),
    "tied": Case(Tied, _ids(20)),
    "written": Case(Written, lambda n: torch.randn(n, 16)),
    "pooled": Case(Pooled, lambda n: torch.randn(n, 3, 16, 16)),
    "products": Case(Products, lambda n: torch.randn(n, 16)),
    "rearranged": Case(Rearranged, lambda n: torch.randn(n, 9, 9, 3)),
    "bags": Case(Bags, _ids(50)),
}


class Ready(NamedTuple):
    """A backend of a module, samples, and its models by the label of their options."""

    backend: TorchBackend
    samples: torch.Tensor
    module: nn.Module
    models: dict[str, TorchModel]

    def feeds(self) -> list[dict[str, np.ndarray[Any, Any]]]:
        """Batches of several sizes."""
        name = self.backend._parts.inputs[0].name
        return [{name: self.samples[:size].numpy()} for size in (5, 1, 16)]

    def config(self, label: str) -> QuantConfig:
        """A configuration: for each op the first option that begins with a label, if any does."""
        found: dict[str, OpConfig] = {}
        for op in self.backend.capability().ops:
            options = [*op.options, *(each.option for each in op.on_request)]
            fitting = [each for each in options if each.label.startswith(label)]
            found[op.name] = fitting[0] if fitting else OpConfig("fp32")
        return QuantConfig(found)

    def model(self, label: str) -> TorchModel:
        """The model of :meth:`config`, which is converted once."""
        if label not in self.models:
            self.models[label] = self.backend.quantize(self.config(label))
        return self.models[label]

    def written(self, label: str) -> TorchModel:
        """The same program in reference form, without kernels for integers."""
        model = self.model(label)
        return TorchModel(model.simulated, lambda: model.converted, lower=False)


@lru_cache(maxsize=16)
def ready(name: str, approach: str, *, reduce_range: bool = False) -> Ready:
    """A backend of one of the modules, the same each time."""
    return fresh(name, approach, reduce_range=reduce_range)


def fresh(name: str, approach: str, *, reduce_range: bool = False) -> Ready:
    """A backend of one of the modules that nothing has been asked of."""
    torch.manual_seed(0)
    case = CASES[name]
    module = case.make().eval()
    samples = case.samples(16)
    backend = TorchBackend(
        module,
        samples[:2],
        calibration_data=samples.numpy(),
        approach=approach,
        reduce_range=reduce_range,
    )
    return Ready(backend, samples, module, {})
