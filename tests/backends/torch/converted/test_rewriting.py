"""What is moved or taken in before kernels are found leaves the outputs as they are."""

from __future__ import annotations

import pytest


torch = pytest.importorskip("torch")

from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


class AddedWithMoreAxes(torch.nn.Module):
    """A bias that gives the sum an axis."""

    shape = (4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(8, 8, bias=False)
        self.b = torch.nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b.view(1, 1, 8)


class AddedToOneSample(torch.nn.Module):
    """As many steps as channels, of a convolution without an axis of samples."""

    shape = (1, 4, 10)

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Conv1d(4, 8, 3, bias=False)
        self.b = torch.nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x[0]) + self.b


class FloatsBesideIntegers(torch.nn.Module):
    """A layer reads floats and integers in one tensor."""

    shape = (4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(8, 8)
        self.b = torch.nn.Linear(9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.cat([self.a(x), (x > 0).sum(1, keepdim=True)], 1))


@pytest.mark.parametrize("make", [AddedWithMoreAxes, AddedToOneSample, FloatsBesideIntegers])
def test_outputs_are_those_of_the_simulation(make: type) -> None:
    torch.manual_seed(0)
    x = torch.randn(make.shape)
    backend = TorchBackend(make().eval(), x, calibration_data=[x] * 4, approach="static")
    layers = [op for op in backend.capability().ops if op.op_type in ("Linear", "Conv1d")]
    config = QuantConfig({op.name: op.options[0] for op in layers})
    torch.testing.assert_close(
        backend.quantize(config).native()(x),
        backend.simulated(config).native()(x),
        rtol=0.02,
        atol=0.02,
    )
