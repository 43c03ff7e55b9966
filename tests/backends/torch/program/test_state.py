"""A program leaves the module's state and the caller's tensors, also behind views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


torch = pytest.importorskip("torch")
nn = torch.nn

import torch_modules  # noqa: E402

from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch import load  # noqa: E402


class Caching(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.how = how
        self.register_buffer("cache", torch.zeros(4, 3))

    def forward(self, x: Any) -> Any:
        if self.how == "element":
            self.cache[0] = self.cache[0] + 1
        elif self.how == "views":
            self.cache.view(2, 6)[:, 1:3].add_(1)
        elif self.how == "split":
            self.cache.split(2)[1].mul_(2)
        elif self.how == "out":
            torch.add(x[:1], 1.0, out=self.cache[:1])
        else:
            torch._foreach_add_([x.clone(), self.cache], 1.0)
        return self.fc(x) + self.cache[0]


@pytest.mark.parametrize("how", ["element", "views", "split", "out", "list"])
def test_state_written_through_a_view_is_refused(how: str) -> None:
    with pytest.raises(ValueError, match="writes into 'cache' when it is called in evaluation"):
        TorchBackend(Caching(how), torch_modules.samples(2, 3), approach="dynamic")


class WritesIntoCopy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.register_buffer("start", torch.zeros(3))

    def forward(self, x: Any) -> Any:
        state = self.start.clone()
        state[0] += 1
        return self.fc(x) + state


def test_a_copy_of_state_may_be_written() -> None:
    TorchBackend(WritesIntoCopy(), torch_modules.samples(2, 3), approach="dynamic")


class WritesIntoList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        torch._foreach_mul_([x, x[:, :2]], 2.0)
        return self.fc(x)


def test_a_list_of_tensors_that_is_written_leaves_the_callers_tensor() -> None:
    net = torch_modules.randomized(WritesIntoList())
    x = torch_modules.samples(30, 6)
    before, expected = x.clone(), net(x.clone())
    backend = TorchBackend(net, x[:2].clone(), calibration_data=x.numpy())
    fp32 = backend.tuning_space().fp32()
    for model in (backend.simulated(fp32), backend.quantize(fp32)):
        torch.testing.assert_close(model.native()(x), expected)
        assert torch.equal(x, before)


class WritesIntoView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        x[:, 0] += 1
        x.view(-1, 2, 3)[:, 1].mul_(2)
        return self.fc(x)


def test_a_view_of_an_input_that_is_written_leaves_the_callers_tensor(tmp_path: Path) -> None:
    net = torch_modules.randomized(WritesIntoView())
    x = torch_modules.samples(30, 6)
    before = x.clone()
    backend = TorchBackend(net, x[:2].clone(), calibration_data=x.numpy())
    config = backend.tuning_space().default()
    model = backend.quantize(config)
    expected = model.native()(x)
    torch.testing.assert_close(backend.simulated(config).native()(x), expected)
    model.save(tmp_path / "model.pt2")
    for lower in (False, True):
        loaded = load(tmp_path / "model.pt2", lower=lower)
        torch.testing.assert_close(loaded(x), expected)
        assert torch.equal(x, before)
