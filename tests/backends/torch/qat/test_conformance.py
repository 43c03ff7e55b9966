"""The tests that any backend can run, where each model is trained."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from one_backend import OneBackend
import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.base import Backend
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.testing import BackendTestCase
from optuna_quant.testing import PartsTestCase
from optuna_quant.testing import TrainingTestCase


def train(model: nn.Module) -> None:
    x = torch_modules.samples(8, 2, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model(x).square().mean().backward()
    optimizer.step()


class TestTraining(OneBackend, BackendTestCase, PartsTestCase, TrainingTestCase):
    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        net, x = torch_modules.convnet(), torch_modules.samples(40, 2, 8, 8)
        data = {"x": x.numpy()}
        return lambda: TorchBackend(net, x[:2], calibration_data=data, approach="qat", train=train)


def train_at_a_rate(model: nn.Module, run: Any) -> None:
    x = torch_modules.samples(8, 2, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), run.trial.suggest_float("lr", 0.0, 0.1))
    model(x).square().mean().backward()
    optimizer.step()
    run.report(float(model(x).detach().mean()), 0)


class TestHyperparameters(OneBackend, TrainingTestCase):
    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        net, x = torch_modules.convnet(), torch_modules.samples(40, 2, 8, 8)
        data = {"x": x.numpy()}
        return lambda: TorchBackend(
            net, x[:2], calibration_data=data, approach="qat", train=train_at_a_rate
        )

    @pytest.fixture
    def hyperparameters(self) -> Mapping[str, float]:
        return {"lr": 0.01}
