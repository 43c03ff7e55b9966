"""The tests that any backend can run, for that of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from one_backend import OneBackend
import pytest
import torch_modules as modules

import optuna_quant
from optuna_quant.backends.base import Backend
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import load
from optuna_quant.backends.torch.converted import compiling
from optuna_quant.costs import Costs
from optuna_quant.costs import MeasuresCosts
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.testing import BackendTestCase
from optuna_quant.testing import BlocksTestCase
from optuna_quant.testing import CalibrationTestCase
from optuna_quant.testing import CompilingTestCase
from optuna_quant.testing import CostsTestCase
from optuna_quant.testing import ModelTestCase
from optuna_quant.testing import SensitivityTestCase
from optuna_quant.testing import SimulationTestCase
from optuna_quant.testing import TuningTestCase


class _Torch(OneBackend):
    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        net, x = modules.convnet(), modules.samples(40, 2, 8, 8)
        return lambda: TorchBackend(net, x[:2], calibration_data={"x": x.numpy()})

    @pytest.fixture
    def make_other_backend(self) -> Callable[[], Backend]:
        net, x = modules.convnet(), 2 * modules.samples(30, 2, 8, 8)
        return lambda: TorchBackend(net, x[:2], calibration_data={"x": x.numpy()})

    @pytest.fixture
    def every_option(
        self, space: TuningSpace, configs: Mapping[str, QuantConfig]
    ) -> dict[str, QuantConfig]:
        # Options that differ in ranges alone run the same, and each model is lowered.
        found = dict(configs)
        for label in ("w=int8/sym/per_channel", "w=int8/sym/per_tensor", "bf16"):
            config = space.fp32()
            for tunable in space.tunables:
                fitting = (each for each in tunable.options if label in each.label)
                config = tunable.set(config, next(fitting, tunable.options[-1]))
            found[label] = config
        return found


class TestTorch(_Torch, BackendTestCase, ModelTestCase, CalibrationTestCase, SimulationTestCase):
    @pytest.fixture
    def call_native(self) -> Callable[[Any, Mapping[str, Any]], object]:
        return lambda module, feed: module(modules.torch.from_numpy(feed["x"]))


@pytest.mark.slow
class TestTorchCompiling(CompilingTestCase):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        nn, x = modules.nn, modules.samples(20, 8)
        net = modules.randomized(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
        return lambda: TorchBackend(net, x[:2], calibration_data=x.numpy())


class TestTorchSumOfAnInput(_Torch, ModelTestCase):
    """A Linear layer whose input is added to its output, which a kernel could write into."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        net, x = modules.residual(), modules.samples(40, 16)
        return lambda: TorchBackend(net, x[:2], calibration_data=x.numpy())


class TestTorchTuning(_Torch, TuningTestCase):
    pass


class TestTorchSensitivities(_Torch, SensitivityTestCase):
    pass


class _Costs(_Torch, CostsTestCase):
    @pytest.fixture(scope="class")
    @classmethod
    def costs(cls, backend: Backend) -> Costs:
        assert isinstance(backend, MeasuresCosts)
        return backend.costs(backend.tuning_space())


class TestTorchCosts(_Costs):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def no_compiler(cls) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiling, "has_compiler", lambda: False)
            yield


@pytest.mark.slow  # The compiler takes seconds.
class TestTorchCostsOfCompiledModels(_Costs):
    pass


class TestTorchBlocks(OneBackend, BlocksTestCase):
    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        net, x = modules.transformer(), modules.samples(20, 5, 8)
        return lambda: TorchBackend(net, x[:2], calibration_data=x.numpy())


@pytest.mark.slow
class TestTorchDynamic(OneBackend, BackendTestCase, ModelTestCase):
    """Models whose results depend on the batch, and with an axis that may have any size."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        net = modules.attention()
        tokens = modules.torch.arange(10).reshape(2, 5)
        return lambda: TorchBackend(net, tokens, approach="dynamic")

    @pytest.fixture
    def feed(self) -> Mapping[str, Any]:
        return {"tokens": modules.torch.arange(15).reshape(3, 5).numpy()}


@pytest.mark.slow
class TestTorchWeights(OneBackend, BackendTestCase, ModelTestCase, CostsTestCase):
    """Weights of few bits alone."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Callable[[], Backend]:
        # The size of ops with one weight adds up only if both have one form.
        net = modules.attention(shared=False)
        tokens = modules.torch.arange(10).reshape(2, 5)
        return lambda: TorchBackend(net, tokens, approach="weight_only")

    @pytest.fixture
    def feed(self) -> Mapping[str, Any]:
        return {"tokens": modules.torch.arange(15).reshape(3, 5).numpy()}


def test_an_answer_is_saved_under_its_own_ending(tmp_path: Path) -> None:
    net, x = modules.convnet(), modules.samples(40, 2, 8, 8)
    result = optuna_quant.tune(
        backend=TorchBackend(net, x[:2], calibration_data=x.numpy()),
        evaluate=lambda model: float(1 + model(x).argmax(1).float().mean()),
        tolerable_loss=0.5,
        objective="size",
        strategy="basic",
        max_trials=2,
        output=tmp_path / "best.pt2",
        show_progress=False,
    )
    result.save(tmp_path / "net.pt2")
    for name in ("best.pt2", "net.pt2"):
        assert modules.torch.equal(load(tmp_path / name)(x), result.model().native()(x))
