"""Programs with integer kernels leave their inputs and parameters as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest


torch = pytest.importorskip("torch")
pytest.importorskip("torchao")

from optuna_quant.backends.base import OpRuns  # noqa: E402
from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch.converted.compiling import has_compiler  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


Tensor = torch.Tensor


class Net(torch.nn.Module):
    """Linear layers, a parameter, and what is made of them."""

    def __init__(self, made: Callable[[Net, Tensor], object]) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(16, 16)
        self.other = torch.nn.Linear(16, 16)
        self.pos = torch.nn.Parameter(torch.randn(4, 16))
        self.drop = torch.nn.Dropout(0.5)
        self.made = made

    def forward(self, x: Tensor) -> object:
        return self.made(self, x)


def _read_later(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.sigmoid(x)
    return net.lin(x) + h.view(4, 16), h


def _in_place(net: Net, x: Tensor) -> Tensor:
    y = net.lin(x)
    y += x
    return y


def _with_itself(net: Net, x: Tensor) -> Tensor:
    y = net.lin(x)
    return y + y


SUMS: dict[str, Callable[[Net, Tensor], object]] = {
    "input": lambda net, x: net.lin(x) + x,
    "input first": lambda net, x: x + net.lin(x),
    "input of three axes": lambda net, x: net.lin(x[None]) + x[None],
    "input, then ReLU": lambda net, x: (net.lin(x) + x).relu(),
    "input behind dropout": lambda net, x: net.lin(x) + net.drop(x),
    "sum behind dropout": lambda net, x: net.drop(net.lin(x)) + x,
    "parameter": lambda net, x: net.lin(x) + net.pos,
    "view": _read_later,
    "in place": _in_place,
    "itself": _with_itself,
    "ReLU": lambda net, x: net.lin(x).relu() + x,
    "ReLU last": lambda net, x: x.sigmoid() + net.lin(x).relu(),
    "ReLU in place": lambda net, x: net.lin(x).relu_() + x.sigmoid(),
    "ReLU of both": lambda net, x: net.lin(x).relu() + net.other(x).relu(),
    "ReLU and a layer": lambda net, x: net.lin(x).relu() + net.other(x),
    "ReLU of three axes": lambda net, x: net.lin(x[None]).relu() + x[None],
    "ReLU behind dropout": lambda net, x: net.drop(net.lin(x).relu()) + x,
    "GELU": lambda net, x: torch.nn.functional.gelu(net.lin(x)) + x,
    "factor": lambda net, x: torch.add(net.lin(x), x.sigmoid(), alpha=2),
    "factor of the layer": lambda net, x: torch.add(x.sigmoid(), net.lin(x), alpha=2),
}


def _prepared(name: str, approach: str) -> tuple[TorchBackend, QuantConfig, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4, 16)
    net = Net(SUMS[name] if name in SUMS else OTHERS[name]).eval()
    backend = TorchBackend(net, x, calibration_data=[x] * 4, approach=approach)
    linear = [op for op in backend.capability().ops if op.op_type == "Linear"]
    return backend, QuantConfig({op.name: op.options[0] for op in linear}), x


def _check(program: Callable[[Tensor], object], expected: object, x: Tensor) -> None:
    before = x.clone()
    for _ in range(3):
        torch.testing.assert_close(program(x), expected, rtol=0.02, atol=0.02)
        torch.testing.assert_close(x, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "approach"),
    [
        *((name, "static") for name in SUMS),
        *((name, "dynamic") for name in ("input", "view", "ReLU")),
        *(
            pytest.param(name, "dynamic", marks=pytest.mark.slow)
            for name in SUMS
            if name not in ("input", "view", "ReLU")
        ),
    ],
)
def test_a_run_changes_nothing_that_is_read_later(name: str, approach: str) -> None:
    backend, config, x = _prepared(name, approach)
    expected = backend.simulated(config).native()(x.clone())
    _check(backend.quantize(config).native(), expected, x)
    assert all(runs.integer for op, runs in backend.executed(config).items() if op in config.ops)


@pytest.mark.slow  # Compiles.
@pytest.mark.parametrize("name", ["input", "input behind dropout", "parameter", "view"])
def test_a_compiled_run_changes_nothing_that_is_read_later(name: str) -> None:
    if not has_compiler():
        pytest.skip("There is no C++ compiler.")
    backend, config, x = _prepared(name, "static")
    expected = backend.simulated(config).native()(x.clone())
    _check(backend.quantize(config).compiled().native(), expected, x)


def _residual(net: Net, x: Tensor) -> Tensor:
    h = net.other(x).relu()
    return net.lin(h) + h


OTHERS: dict[str, Callable[[Net, Tensor], object]] = {
    "two layers": lambda net, x: net.lin(x) + net.other(x),
    "residual": _residual,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_kernel_still_adds_what_nothing_else_needs(name: str) -> None:
    backend, config, x = _prepared(name, "static")
    converted = backend.converted(config)
    targets = [str(node.target) for node in converted.program.graph.graph.nodes]
    assert sum("qlinear_pointwise.binary" in each for each in targets) == 1
    _check(converted.native(), backend.simulated(config).native()(x), x)


def test_an_addition_that_became_a_difference_has_a_kernel() -> None:
    torch.manual_seed(0)
    net, x = Net(SUMS["input"]), torch.randn(4, 16)
    backend = TorchBackend(net, x, calibration_data=x.numpy())
    space = backend.tuning_space(op_types="all", op_name_dict={"Add": {"mode": ["fp32"]}})
    runs = backend.executed(space.default())
    assert runs["lin"].kernel == "onednn.qlinear_pointwise"
    assert runs["Add"] == OpRuns("aten.sub", integer=False)
