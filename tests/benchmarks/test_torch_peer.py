"""With equal ranges a quantized program computes what torchao's does."""

from __future__ import annotations

from pathlib import Path
import sys

import pytest


torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
from torch import nn  # noqa: E402


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.torch_peer import alike  # noqa: E402
from benchmarks.torch_peer import outputs  # noqa: E402
from benchmarks.torch_peer import relative  # noqa: E402
from benchmarks.torch_stock import minmax_config  # noqa: E402
from benchmarks.torch_stock import quantized  # noqa: E402
from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch.converted.saturation import products_saturate  # noqa: E402


SAME = 5e-4
"""A number or two may fall on the other side of a rounding boundary."""
MATTERS = 5e-3
"""What quantization does to these modules, at least."""


class Residual(nn.Module):
    """Convolutions with batch normalization, one of them depthwise, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.fc = nn.Linear(128, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.norm(self.first(x)).relu())
        return self.fc((x + self.depthwise(x)).relu().flatten(1))


def _chain() -> nn.Module:
    layers = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32, bias=False), nn.GELU()
    return nn.Sequential(*layers, nn.Linear(32, 5))


@pytest.mark.parametrize(("make", "shape"), [(Residual, (3, 8, 8)), (_chain, (16,))])
def test_outputs_are_those_of_torchao(make: type[nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = make()
    x = torch.randn(96, *shape)
    with torch.no_grad():
        module(x)  # Statistics for batch normalization.
        module.eval()
        backend = TorchBackend(module, x[:2], calibration_data=x)
        config = alike(backend)
        theirs = outputs(quantized(module, x.split(32), minmax_config(), layers_alone=True), x)
        simulated = outputs(backend.simulated(config).native(), x)
        # Where integer kernels saturate, they are no measure of what is computed.
        written = backend.converted(config, lower=not products_saturate())
        integers = outputs(written.native(), x)
        assert relative(theirs, module(x)) > MATTERS
    assert len(config.ops) == 3
    assert relative(theirs, simulated) < SAME
    assert relative(theirs, integers) < SAME
