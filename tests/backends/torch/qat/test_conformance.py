"""The tests that any backend can run, where each model is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.base import Backend
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.testing import BackendTestCase
from optuna_quant.testing import PartsTestCase


def train(model: nn.Module) -> None:
    x = torch_modules.samples(8, 2, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model(x).square().mean().backward()
    optimizer.step()


class TestTraining(BackendTestCase, PartsTestCase):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        net, x = torch_modules.convnet(), torch_modules.samples(40, 2, 8, 8)
        data = {"x": x.numpy()}
        return lambda: TorchBackend(net, x[:2], calibration_data=data, approach="qat", train=train)
